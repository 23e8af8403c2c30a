import { expect, test } from "bun:test";
import { isMessage } from "../parts/shared/control.ts";
import { cleanName } from "../parts/shared/text.ts";

test.each([
  { type: "ready" },
  { type: "holds", lines: false, torn: true },
  { type: "who", at: 0 },
  { type: "leave", at: 4096 },
  { type: "name", at: 0, name: "ann" },
  { type: "tell", at: 0, text: "x".repeat(999) },
])("the server takes %j from a worker", (message) => {
  expect(isMessage(message)).toBe(true);
});

test.each([
  undefined,
  null,
  "ready",
  { type: "done", at: 0, name: "ann" },
  { type: ["who"], at: 0 },
  { type: "who" },
  { type: "holds", lines: true },
  { type: "leave", at: "0" },
  { type: "leave", at: 2 ** 53 },
  { type: "name", at: 0, name: ["ann"] },
  { type: "name", at: 0, name: "ann\n* bob left" },
  { type: "name", at: 0, name: "x".repeat(33) },
  { type: "tell", text: "usage" },
  ...["tell", "mark", "warn", "refuse"].map((type) => ({ type, at: 0, text: "x".repeat(1000) })),
])("the server refuses %j from a worker", (message) => {
  expect(isMessage(message)).toBe(false);
});

test.each(["**a:n n", "e\u0301".repeat(40), "\u0958".repeat(20), "\u212b\u037e", "\ud800"])(
  "whatever a client sends as its name, here %j, the server takes what the worker makes of it",
  (text) => expect(isMessage({ type: "name", at: 0, name: cleanName(text) })).toBe(true),
);
