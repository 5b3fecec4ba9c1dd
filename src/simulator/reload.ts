/**
 * Service reloads: every write to iSCSI or NVMe-oF ends in one, they run one after another, and each
 * takes its time. A stopped service is rendered but applies nothing, without any error.
 */

import { CallError } from "./errors.ts";
import { pause } from "./latency.ts";
import { Queue } from "./queue.ts";
import type { Sim } from "./sim.ts";
import type { ServiceName } from "./world.ts";

export class Reloads {
  private readonly queues = new Map<ServiceName, Queue>();
  /** Reloads done since the start, by service. */
  readonly done = new Map<ServiceName, number>();

  constructor(private readonly sim: Sim) {}

  /**
   * @throws CallError 202 when the service refuses its new configuration; the row is saved by then.
   */
  reload(service: ServiceName): Promise<void> {
    const queue = this.queues.get(service) ?? new Queue();
    this.queues.set(service, queue);
    // 25.04 takes no lock around the program that applies iSCSI; the rest waits in line.
    if (this.sim.release.major === 2504) return this.once(service);
    return queue.run(() => this.once(service));
  }

  private async once(service: ServiceName): Promise<void> {
    const { sim } = this;
    if (!sim.world.services.get(service)?.running) {
      await pause(sim.latency.render);
      return;
    }
    const fault = sim.faults.next(`reload.${service}`);
    if (fault?.do === "delay") await pause(fault.ms ?? 0);
    const { tables } = sim.world;
    const exported = service === "iscsitarget" ? tables.targetextent.size : tables.namespace.size;
    await pause(sim.latency.reload(service, exported, sim.release));
    const failure = new CallError(`The ${service} service failed to start`, 202);
    if (fault?.do === "error") throw failure;
    try {
      await sim.applyService(service);
    } catch (error) {
      failure.cause = error;
      throw failure;
    }
    this.done.set(service, (this.done.get(service) ?? 0) + 1);
  }
}
