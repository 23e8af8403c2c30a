/** What the benchmark sees of a fault of one client, with real servers. */
import { expect, test } from "bun:test";
import { measureFault } from "../bench/faults.ts";
import { contenders, startServer } from "../bench/servers.ts";
import { patience } from "./helpers.ts";

test(
  "a killed process hurts nobody else with pipechat, and everybody where there is one for all",
  async () => {
    if (process.platform !== "linux") return; // elsewhere nobody can be found from outside
    const outcome = async (name: string) => {
      await using server = await startServer(
        contenders.find((one) => one.name === name)!.start(60),
      );
      return await measureFault(server, "kill", 1);
    };
    const [pipechat, evented] = [await outcome("pipechat"), await outcome("evented")];
    expect(pipechat).toMatchObject({ skipped: null, victim: { cutOff: false } });
    expect(pipechat.others).toMatchObject({ cutOff: 0, lost: 0, forGood: false });
    expect(pipechat.others!.told).toBeGreaterThan(0);
    expect(pipechat.victim!.served).toBeGreaterThan(0);
    expect(evented.others).toMatchObject({ cutOff: 49, forGood: true, told: NaN, after: Infinity });
    expect(evented.others!.lost).toBeGreaterThan(3000);
    expect(evented.victim).toMatchObject({ cutOff: true, served: Infinity });
  },
  2 * patience,
);
