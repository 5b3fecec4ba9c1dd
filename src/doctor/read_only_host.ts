/**
 * The node for those who look and change nothing: whatever would write is refused, and of programs only those run
 * that read. That the doctor changes nothing does not hang on each check's good will.
 */
import { type Host, HostError } from "../host/host.ts";

/** What an array counts is counted here too: a login that is not noted down may lock the node out. */
const LOGINS = /^\/run\/tnblock\/logins-[0-9a-f]+\.json$/;

/** Left out without a word: which dialect an array speaks is found out anew next time. */
const DIALECT = /^\/run\/tnblock\/[^/]+\.dialect$/;

/** Programs that read, by the beginning of their arguments. */
const READING: readonly (readonly [program: string, args: RegExp])[] = [
  ["/usr/bin/systemctl", /^show( |$)/],
  ["/usr/sbin/pvesm", /^apiinfo$/],
  ["/usr/sbin/lvmconfig", /^--typeconfig full devices\//],
  ["/usr/sbin/multipathd", /^show config$/],
  // Another node's doctor, which is bound like this one.
  ["/usr/bin/ssh", / -- \/usr\/local\/bin\/tnblock doctor --node-facts$/],
];

/** The same node, read only. */
export function readOnlyHost(host: Host): Host {
  const { files } = host;
  const refuse = (what: string): Promise<never> =>
    Promise.reject(new HostError("EROFS", `Cannot ${what}: the doctor changes nothing`));
  return {
    ...host,
    files: {
      readText: (path) => files.readText(path),
      readBytes: (path) => files.readBytes(path),
      list: (path) => files.list(path),
      status: (path) => files.status(path),
      readLink: (path) => files.readLink(path),
      resolve: (path) => files.resolve(path),
      replaceText: (path, text, mode, options) => {
        if (LOGINS.test(path)) return files.replaceText(path, text, mode, options);
        return DIALECT.test(path) ? Promise.resolve() : refuse(`write ${path}`);
      },
      replaceLink: (path) => refuse(`link ${path}`),
      remove: (path) => refuse(`remove ${path}`),
      makeDirectory: (path) => refuse(`make ${path}`),
      writeControl: (path) => refuse(`write ${path}`),
    },
    run: (program, args, options) => {
      const isReading = READING.some(([name, pattern]) =>
        name === program && pattern.test(args.join(" "))
      );
      return isReading ? host.run(program, args, options) : refuse(`run ${program}`);
    },
    serveLocal: (path) => refuse(`serve ${path}`),
    connectFabrics: () => refuse("connect a controller"),
    prepareLinks: () => refuse("make the mounts of links"),
  };
}
