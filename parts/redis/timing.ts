import { haste } from "../shared/testing.ts";

/** How long the link waits, in ms: one object, so that tests can make it shorter. */
export const timing = {
  lease: 9000 / haste, // a server that does not renew its lease for so long is lost
  beat: 2000 / haste, // leases are renewed, and reads that find nothing repeated, so often
  maxRoundTrip: 4000 / haste, // a Redis that takes longer to answer counts as away
  silence: 6500 / haste, // a beat, a round trip and a margin: a silent connection is lost after it
  slow: 2000 / haste, // a link whose round trip takes longer is slow …
  quick: 1000 / haste, // … until it takes less than this
  maxPause: 2000 / haste, // before the next attempt to connect
};
