/** Measures a server that runs, or two in turn, from the first client to the last line. */
import { Room, type Target } from "./clients.ts";
import { addUp, bursts, type Flood, join, openLoop, type Talk, timesOf } from "./load.ts";
import type { Measured } from "./schema.ts";
import { median, sum } from "./stats.ts";
import { memory, spent } from "./system.ts";

/** What the clients of a server do. What is 0 is left out. */
export interface Plan {
  n: number; // receivers
  rate: number; // lines a second of the open loop
  size: number; // bytes in a line
  seconds: number; // of the open loop
  joins: number;
  bursts: number; // flat out, of one sender and of ten
  idle: number; // seconds without a line
}

/** A server with a room full of clients, and what came of its part of the plan so far. */
async function open(room: Room, { n, rate, idle }: Plan) {
  const { target } = room;
  await Bun.sleep(300); // a spare worker may be starting
  const empty = memory(target.pid);
  const fill = (await room.fill(n + 1)) / (n - 1);
  await openLoop(room, rate, 0.5); // warms up
  await Bun.sleep(300);
  const held = memory(target.pid);
  const silent = await spent(target.pid, () => Bun.sleep(idle * 1000));
  return {
    room,
    figures: {
      "all at once, ms": fill / 1e6,
      "memory, MB": (held - empty) / (n + 1) / 2 ** 20,
      "idle, %": ((silent.server + silent.workers) / (idle * 1e9)) * 100,
    },
    talks: [] as Talk[],
    joins: [] as number[],
    one: { bursts: bursts(room, 1), floods: [] as Flood[] },
    ten: { bursts: bursts(room, Math.min(10, n)), floods: [] as Flood[] },
  };
}

type Side = Awaited<ReturnType<typeof open>>;

/** Everything is done to one server and then to the other: what slows the machine slows both. */
export async function measure(targets: Target[], plan: Plan): Promise<Measured[]> {
  const sides: Side[] = [];
  const inTurn = async (times: number, run: (side: Side) => Promise<unknown>) => {
    for (let nth = 0; nth < times; nth++) for (const side of sides) await run(side);
  };
  using rooms = new DisposableStack();
  for (const target of targets)
    sides.push(await open(rooms.use(new Room(target, plan.size)), plan));
  await inTurn(plan.seconds, async ({ talks, room }) =>
    talks.push(await openLoop(room, plan.rate, 1)),
  );
  await inTurn(plan.joins, async ({ joins, room }) => joins.push(await join(room)));
  for (const senders of ["one", "ten"] as const)
    await inTurn(plan.bursts, async ({ [senders]: { bursts, floods } }) => {
      const { value } = await bursts.next();
      if (value) floods.push(value);
    });
  return sides.map(report);
}

function report({ figures, talks, joins, one, ten }: Side): Measured {
  const delivered = sum(talks.map(({ delivered }) => delivered));
  const [server, workers] = (["server", "workers"] as const).map(
    (side) => sum(talks.map(({ spent }) => spent[side])) / delivered / 1e3,
  ) as [number, number];
  const wrong = talks.map(({ wrong }) => wrong);
  for (const { floods } of [one, ten]) if (floods.length > 0) wrong.push(floods.at(-1)!.wrong);
  return {
    ...timesOf(talks),
    figures: {
      ...figures,
      ...{ "join, ms": median(joins) / 1e6, "CPU, µs/line": server + workers },
      ...{ "server, µs/line": server, "workers, µs/line": workers },
      ...figuresOf("one", one.floods),
      ...figuresOf("ten", ten.floods),
    },
    wrong: addUp(wrong),
  };
}

/** The figures of the median burst, or of the one that lost something. */
function figuresOf(name: string, floods: Flood[]): Record<string, number> {
  const sorted = floods.toSorted((a, b) => a.perSecond - b.perSecond);
  const shown = floods.at(-1)?.wrong.lost ? floods.at(-1) : sorted[sorted.length >> 1];
  if (!shown) return {};
  const { perSecond, load, server, workers } = shown;
  return {
    ...{ [`${name}, M lines/s`]: perSecond / 1e6, [`${name}, load %`]: load * 100 },
    ...{ [`${name}, server %`]: server * 100, [`${name}, workers %`]: workers * 100 },
  };
}
