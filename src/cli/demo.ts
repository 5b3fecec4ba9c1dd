/** `tnblock demo`: prints each step of the demo as it goes, and whether all went well. */
import { INTERRUPTED, runDemoSteps, type StepReport } from "../demo/run.ts";
import { type CommandContext, EXIT } from "./framework.ts";

/** Options of the command. */
export interface DemoCommandOptions {
  readonly json: boolean;
  readonly release: "25.10" | "26";
  readonly faults?: string | undefined;
}

/** Runs the demo; {@link EXIT.failed} when a step failed. */
export async function runDemo(
  context: CommandContext,
  options: DemoCommandOptions,
): Promise<number> {
  const reports: StepReport[] = [];
  let transport = "";
  let isStopped = false;
  context.stopped().then(() => isStopped = true);
  const failed = await runDemoSteps({
    isStopped: () => isStopped,
    release: options.release,
    faults: options.faults,
    onStep: (report) => {
      reports.push(report);
      if (options.json) return;
      if (report.transport !== transport) {
        transport = report.transport;
        context.out(
          `\nA disk over ${
            transport === "iscsi" ? "iSCSI" : "NVMe/TCP"
          }, TrueNAS ${options.release} (simulated)\n`,
        );
      }
      context.out(describe(report));
    },
  });
  if (failed === INTERRUPTED) return EXIT.interrupted;
  if (options.json) {
    context.out(
      JSON.stringify(
        { schemaVersion: 1, ok: failed === undefined, failedAt: failed ?? null, steps: reports },
        null,
        2,
      ) + "\n",
    );
  } else {
    context.out(failed === undefined ? "\ndemo: ok\n" : `\ndemo: FAILED at ${failed}\n`);
  }
  return failed === undefined ? EXIT.done : EXIT.failed;
}

function describe(report: StepReport): string {
  const lines = [
    `${report.ok ? "[ok]" : "[x] "} ${report.title}  (${report.asked}, ${report.ms} ms)`,
  ];
  if (report.arrayCalls.length > 0) {
    lines.push(
      `       array: ${
        report.arrayCalls.map((call) =>
          `${call.method}${call.done ? "" : " (not yet)"} ${call.ms} ms`
        ).join(", ")
      }`,
    );
  }
  for (const line of report.log) lines.push(`       node:  ${line}`);
  if (report.problem !== undefined) lines.push(`       ${report.problem}`);
  else if (report.answer !== null && report.answer !== undefined) {
    lines.push(`       -> ${short(report.answer)}`);
  }
  return lines.join("\n") + "\n";
}

function short(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > 160 ? `${text.slice(0, 157)}...` : text;
}
