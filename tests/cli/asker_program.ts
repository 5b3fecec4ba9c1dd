/** Asks one question of each kind and prints the answers: what asker_test.ts runs in a terminal. */
import process from "node:process";
import { asker } from "../../src/cli/asker.ts";
import { Cancelled } from "../../src/common/asking.ts";

const ask = asker({ input: process.stdin, output: process.stderr });
try {
  const host = await ask.text({
    flag: "--api-host",
    message: "Address",
    initial: "truenas.lan",
    refuse: (answer) => answer === "bad" ? "there is no such host" : undefined,
  });
  const key = await ask.secret({ flag: "--api-key-file", message: "API key" });
  const transport = await ask.choose({
    flag: "--transport",
    message: "Transport",
    choices: [{ value: "iscsi", label: "iSCSI" }, { value: "nvme-tcp", label: "NVMe/TCP" }],
  });
  const portals = await ask.chooseSome({
    flag: "--portals",
    message: "Portals",
    choices: ["a", "b", "c"].map((value) => ({ value, label: `portal ${value}\x1b[2J` })),
  });
  const isAgreed = await ask.confirm({ flag: "--yes", message: "Go on?" });
  const isTyped = await ask.confirmTyped({ flag: "--yes", message: "Destroy?", word: "tank/pve" });
  process.stdout.write(JSON.stringify({ host, key, transport, portals, isAgreed, isTyped }));
} catch (error) {
  process.stdout.write(`left with ${error instanceof Cancelled ? "Cancelled" : error}`);
  process.exitCode = 130;
}
