/** Planted faults: each must be found by its own check and by no other. */
import { assert, assertEquals } from "@std/assert";
import type { Severity } from "../../src/doctor/check.ts";
import type { DoctorOptions } from "../../src/doctor/doctor.ts";
import type { PlaceOptions, TransportKind } from "../support/place.ts";
import { Healthy } from "./healthy.ts";

/** A fault, and who must find it. */
export interface Plant {
  readonly check: string;
  /** A half-sentence: "... is found by <check> alone". */
  readonly what: string;
  readonly severity: Severity;
  readonly transport: TransportKind;
  readonly place?: PlaceOptions;
  readonly how?: (healthy: Healthy) => Partial<DoctorOptions>;
  readonly plant: (healthy: Healthy) => Promise<unknown> | unknown;
}

/** A test for each. */
export function testPlants(plants: readonly Plant[]): void {
  for (const { check, what, severity, transport, place, how, plant } of plants) {
    Deno.test(`${what} is found by ${check} alone, over ${transport}`, async () => {
      await using healthy = await Healthy.start(transport, place);
      await plant(healthy);
      const { results } = await healthy.look({}, how?.(healthy));
      const findings = results.flatMap((result) => result.findings);
      assertEquals(
        [...new Set(findings.map((finding) => finding.check))],
        [check],
        JSON.stringify(findings.map(({ check, text }) => [check, text]), null, 2),
      );
      assertEquals(findings[0]?.severity, severity, findings[0]?.text ?? "");
      for (const { text, guide } of findings) {
        assert(!/[.!]$/.test(text), `"${text}" ends with a stop`);
        assertEquals(guide.length, 5);
        for (const step of [text, ...guide]) {
          assert(!/undefined|\[object|NaN/.test(step) && step.trim().length > 10, step);
        }
      }
    });
  }
}
