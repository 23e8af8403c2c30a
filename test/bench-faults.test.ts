/** What the benchmark sees of a fault of one client, with real servers. */
import { expect, test } from "bun:test";
import { measureFault } from "../bench/faults.ts";
import { contenders, startServer } from "../bench/servers.ts";
import { patience } from "./helpers.ts";

async function outcome(name: string) {
  await using server = await startServer(contenders.find((one) => one.name === name)!.start(20));
  return await measureFault(server, "kill", 1, 5);
}

test.skipIf(process.platform !== "linux")(
  "a killed process hurts nobody else with pipechat, and everybody where there is one for all",
  async () => {
    const [pipechat, evented] = [await outcome("pipechat"), await outcome("evented")];
    expect(pipechat).toMatchObject({ skipped: null, victim: { cutOff: false } });
    expect(pipechat.others).toMatchObject({ cutOff: 0, lost: 0, forGood: false });
    expect(pipechat.others!.told).toBeGreaterThan(0);
    expect(pipechat.victim!.served).toBeGreaterThan(0);
    expect(evented.others).toMatchObject({ cutOff: 4, forGood: true, told: NaN });
    expect(evented.victim).toMatchObject({ cutOff: true, served: Infinity });
  },
  2 * patience,
);
