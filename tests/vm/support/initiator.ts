/** The initiator's side driven by hand, as an administrator would: for facts about the kernel. */

import { type PortalAddress, PORTALS, type Vm } from "./vm.ts";
import { IQN, NQN } from "./kernel_array.ts";

/** Connects one controller; `extra` are more fabrics options. Answers as the kernel does. */
export function nvmeConnect(vm: Vm, portal: PortalAddress, extra = ""): Promise<string> {
  const options = `transport=tcp,traddr=${portal},trsvcid=4420,nqn=${NQN},hostnqn=${vm.hostNqn},` +
    `hostid=${vm.hostId},keep_alive_tmo=5,reconnect_delay=2,ctrl_loss_tmo=600${extra}`;
  return vm.sh(`exec 9<>/dev/nvme-fabrics && printf %s '${options}' >&9 && head -n 1 <&9`);
}

/** Waits for a disk's link in /dev/disk/by-id. */
export async function awaitLink(vm: Vm, name: string, seconds = 30): Promise<string> {
  const path = `/dev/disk/by-id/${name}`;
  await vm.until(`[ -b ${path} ]`, seconds);
  return path;
}

/** Logs in at one portal without looking for disks. */
export async function iscsiLogin(vm: Vm, portal: PortalAddress): Promise<void> {
  const node = `iscsiadm -m node -T ${IQN} -p ${portal}:3260,1`;
  await vm.sh(`set -e
    pidof iscsid >/dev/null || iscsid
    ${node} -o new >/dev/null
    ${node} -o update -n node.session.scan -v manual -n node.session.timeo.replacement_timeout -v 15 \\
      -n node.conn[0].timeo.noop_out_interval -v 2 -n node.conn[0].timeo.noop_out_timeout -v 2
    ${node} --login >/dev/null`);
}

/** Looks for one LUN on every session; answers with the SCSI addresses it appeared at. */
export async function scanLun(vm: Vm, lun: number): Promise<string[]> {
  const found = await vm.sh(`
    for host in /sys/class/iscsi_host/host*; do
      echo "0 0 ${lun}" >/sys/class/scsi_host/$(basename $host)/scan
    done
    for disk in /sys/block/sd*; do [ -e $disk ] && basename $(readlink -f $disk/device); done; true`);
  return found === "" ? [] : found.split("\n");
}

/** Disconnects, logs out and removes all there is, and waits until it is gone. */
export async function forgetEverything(vm: Vm): Promise<void> {
  await vm.linkUp(...PORTALS);
  await vm.sh(`shopt -s nullglob
    if pidof multipathd >/dev/null; then
      for map in /sys/block/dm-*; do
        multipathd disablequeueing map $(cat $map/dm/name) >/dev/null
        multipathd remove map $(cat $map/dm/name) >/dev/null
      done
      multipathd shutdown >/dev/null
      while pidof multipathd >/dev/null; do sleep 0.05; done
    fi
    for map in /sys/block/dm-*; do dmsetup remove --force $(cat $map/dm/name); done
    for disk in /sys/block/sd*; do echo 1 >$disk/device/delete; done
    for controller in /sys/class/nvme/nvme*; do echo 1 >$controller/delete_controller; done
    if pidof iscsid >/dev/null; then
      iscsiadm -m node --logoutall=all >/dev/null 2>&1
      iscsiadm -m node -o delete >/dev/null 2>&1
    fi
    rm -rf /var/lib/iscsi/nodes/* /etc/multipath.conf /etc/multipath/wwids
    udevadm settle -t 60`);
  await vm.until(
    `[ -z "$(ls /sys/class/nvme /sys/class/iscsi_session /sys/block | grep -E '^(nvme|session|sd|dm-)')" ]`,
  );
  await vm.sh("udevadm settle -t 60");
}
