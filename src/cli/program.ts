/** The command tree. Each command's work is in a file of its own, loaded only when it runs. */
import { Argument, Command, type CommandContext, Exit, Option } from "./framework.ts";
import { addHelp } from "./help.ts";
import { SETUP_ANSWERS } from "./setup_flags.ts";

/** What pvesm calls it; accepted, and not shown. */
const outputFormat = () =>
  new Option("--output-format <format>").choices(["text", "json"] as const).hideHelp();

const jsonOption = () =>
  new Option("-o, --output <format>", "how to print").choices(["text", "json"] as const).default(
    "text" as const,
  );

/** Builds the tree of commands; nothing runs before {@link runProgram}. */
// deno-lint-ignore no-explicit-any
export function buildProgram(context: CommandContext): Command<any, any, any> {
  const program = new Command("tnblock")
    .description("Block storage on TrueNAS for Proxmox VE, over iSCSI and NVMe/TCP")
    .option("--root <dir>", "take DIR for the root of the file system (also TNBLOCK_ROOT)")
    .option("--no-color", "no colours (also NO_COLOR)")
    .option("--debug", "print the stack of an unexpected failure (also TNBLOCK_TRACE=1)")
    .helpCommand(false)
    .hook("preAction", async () => {
      const [{ settleColors }, { default: process }] = await Promise.all([
        import("./colors.ts"),
        import("node:process"),
      ]);
      const { color, debug } = program.opts();
      settleColors(process.env, color);
      if (debug === true) process.env["TNBLOCK_TRACE"] = "1";
    })
    .addHelpText(
      "after",
      "\nStart with:\n  tnblock demo        a whole disk life, simulated\n  tnblock scan        the NVMe and iSCSI disks of this machine\n",
    );

  program.command("version")
    .description("print the version and what this program is built from")
    .addOption(jsonOption())
    .addOption(outputFormat())
    .option("--licenses", "print the notices of the software that this program contains")
    .option("--shim", "print the storage plugin that Proxmox VE loads, to be installed by hand")
    .action(async (options) => {
      const { runVersion } = await import("./version.ts");
      await runVersion(context, {
        json: (options.outputFormat ?? options.output) === "json",
        licenses: options.licenses === true,
        shim: options.shim === true,
      });
    });

  program.command("status")
    .description("print how the daemon, the arrays and the disks of this node are")
    .addOption(jsonOption())
    .addOption(outputFormat())
    .addHelpText(
      "after",
      "\nEnds with 0 when all is well, 1 when something is degraded, 6 when an array cannot be reached.\n",
    )
    .action(async (options) => {
      const [{ runStatus }, { linuxHost }, { VERSION }, { default: process }] = await Promise.all([
        import("./status.ts"),
        import("../host/linux.ts"),
        import("./version.ts"),
        import("node:process"),
      ]);
      throw new Exit(
        await runStatus(linuxHost({ root: context.root }), {
          json: (options.outputFormat ?? options.output) === "json",
          columns: context.isTerminal ? process.stdout.columns : undefined,
          version: VERSION,
        }, context.out),
      );
    });

  program.command("doctor")
    .description("look at the node, its storages and arrays, and tell in five steps what to do")
    .argument("[checks...]", "only these checks; see --list")
    .option("--storage <id>", "only this storage")
    .option("--cluster", "ask all nodes, and compare them")
    .option("--list", "print the checks, and look at nothing")
    .option("--report", "print what can be shown to others: all names and addresses masked")
    .option("--quiet", "print findings only")
    .option("--strict", "end with 8 when there are warnings alone")
    .option("--no-walk", "ask nothing, also in a terminal")
    .addOption(new Option("--node-facts", "what another node asks for").hideHelp())
    .addOption(jsonOption())
    .addOption(outputFormat())
    .addHelpText(
      "after",
      "\nEnds with 0 when nothing is wrong, 10 with errors. Changes nothing.\n\nExamples:\n" +
        "  tnblock doctor                         # all checks of this node\n" +
        "  tnblock doctor portal-reach sessions   # two of them\n" +
        "  tnblock doctor --cluster               # all nodes, compared\n",
    )
    .action(async (checks, options) => {
      const [{ runDoctor }, { linuxHost }, { VERSION }, { asker }, { default: process }] =
        await Promise.all([
          import("./doctor.ts"),
          import("../host/linux.ts"),
          import("./version.ts"),
          import("./asker.ts"),
          import("node:process"),
        ]);
      const json = (options.outputFormat ?? options.output) === "json";
      const isPlain = json || options.report === true || options.quiet === true;
      const isTalking = !isPlain && options.walk && context.isTerminal &&
        process.stdin.isTTY === true && process.stderr.isTTY === true;
      throw new Exit(
        await runDoctor(linuxHost({ root: context.root }), {
          ids: checks,
          storage: options.storage,
          json,
          list: options.list === true,
          report: options.report === true,
          cluster: options.cluster === true,
          nodeFacts: options.nodeFacts === true,
          strict: options.strict === true,
          quiet: options.quiet === true,
          version: VERSION,
          limitLogins: context.env["TNBLOCK_LOGIN_BUDGET"] !== "0",
          columns: context.isTerminal ? process.stdout.columns : undefined,
          asker: isTalking ? asker({ input: process.stdin, output: process.stderr }) : undefined,
        }, context.out),
      );
    });

  program.command("list")
    .description(
      "print the volumes of this node's storages: from the daemon's memory, else of the array",
    )
    .argument("[storage]", "only this storage")
    .addOption(
      new Option("-o, --output <format>", "how to print").choices(
        ["text", "json", "name"] as const,
      ).default("text" as const),
    )
    .addOption(outputFormat())
    .option("--no-header", "rows alone: all columns, apart by tabs, exact numbers")
    .option("--fresh", "ask the array, also when a daemon remembers")
    .option("--snapshots", "count snapshots: asks the array, a call for each volume")
    .action(async (storage, options) => {
      const [{ runList }, { linuxHost }, { default: process }] = await Promise.all([
        import("./list.ts"),
        import("../host/linux.ts"),
        import("node:process"),
      ]);
      throw new Exit(
        await runList(context, linuxHost({ root: context.root }), {
          ...{ storage, output: options.outputFormat ?? options.output, header: options.header },
          ...{ fresh: options.fresh === true, snapshots: options.snapshots === true },
          columns: context.isTerminal ? process.stdout.columns : undefined,
        }),
      );
    });

  program.command("scan")
    .description("print the NVMe and iSCSI disks that this machine sees")
    .addOption(jsonOption())
    .addOption(outputFormat())
    .action(async (options) => {
      const [{ runScan }, { linuxHost }] = await Promise.all([
        import("./scan.ts"),
        import("../host/linux.ts"),
      ]);
      throw new Exit(
        await runScan(
          linuxHost({ root: context.root }),
          { json: (options.outputFormat ?? options.output) === "json" },
          context.out,
        ),
      );
    });

  program.command("install")
    .description("put this program, the plugin and the daemon in place on this node, or on all")
    .option("--all-nodes", "on every node of the cluster, this one first, over its ssh")
    .option("--roll-back", "bring back what the last installation replaced")
    .option("--allow-older", "let an older version take the place of a newer one")
    .option("--no-lvm-filter", "leave LVM's filter as it is")
    .option("--no-multipath", "leave multipathd's settings as they are")
    .option("--no-nvme-rule", "leave the largest I/O to NVMe disks as it is")
    .option("--dry-run", "print the plan, and change nothing")
    .option("--yes", "ask nothing")
    .addOption(jsonOption())
    .addOption(outputFormat())
    .addHelpText(
      "after",
      "\nExamples:\n  tnblock install --dry-run      what would be done here\n" +
        "  tnblock install --all-nodes    on the whole cluster\n" +
        "  tnblock install --roll-back    the version before\n",
    )
    .action(async (options) => {
      const [{ runInstall }, { installSurroundings }] = await Promise.all([
        import("./install.ts"),
        import("./install_surroundings.ts"),
      ]);
      throw new Exit(
        await runInstall(context, {
          json: (options.outputFormat ?? options.output) === "json",
          ...{ yes: options.yes === true, dryRun: options.dryRun === true },
          ...{ allNodes: options.allNodes === true, rollBack: options.rollBack === true },
          ...{ lvmFilter: options.lvmFilter, multipath: options.multipath },
          ...{ nvmeRule: options.nvmeRule, allowOlder: options.allowOlder === true },
        }, installSurroundings()),
      );
    });

  program.command("uninstall")
    .description("remove from this node what install has put here; volumes stay")
    .option("--remove-secrets", "remove the API keys of former storages from /etc/pve/priv as well")
    .option("--dry-run", "print the plan, and change nothing")
    .option("--yes", "ask nothing")
    .addOption(jsonOption())
    .addOption(outputFormat())
    .action(async (options) => {
      const [{ runUninstall }, { installSurroundings }] = await Promise.all([
        import("./install.ts"),
        import("./install_surroundings.ts"),
      ]);
      throw new Exit(
        await runUninstall(context, {
          json: (options.outputFormat ?? options.output) === "json",
          ...{ yes: options.yes === true, dryRun: options.dryRun === true },
          removeSecrets: options.removeSecrets === true,
        }, installSurroundings()),
      );
    });

  program.command("cleanup-orphans")
    .description("show what nobody on any node needs any more, and remove it after a typed word")
    .argument("[storage]", "only this storage")
    .option("--dry-run", "print what would be done, and change nothing")
    .option("--yes", "ask nothing, and remove what is offered, nothing else")
    .addOption(new Option("--node-facts", "what another node asks for").hideHelp())
    .addOption(jsonOption())
    .addOption(outputFormat())
    .addHelpText(
      "after",
      "\nOffered is only what carries this storage's marks, is older than 24 hours, and was looked for on\n" +
        "every node. All else stays, with its reason. Without a terminal nothing is removed but with --yes.\n" +
        "Ends with 5 when nothing can be told now: a node is away, or a task runs.\n\nExamples:\n" +
        "  tnblock cleanup-orphans --dry-run san   # what would be removed, call by call\n" +
        "  tnblock cleanup-orphans san             # shown first, removed after a typed word\n",
    )
    .action(async (storage, options) => {
      const [{ runCleanupOrphans }, { surroundings }] = await Promise.all([
        import("./cleanup_orphans.ts"),
        import("./surroundings.ts"),
      ]);
      throw new Exit(
        await runCleanupOrphans(context, {
          storage,
          json: (options.outputFormat ?? options.output) === "json",
          ...{ yes: options.yes === true, dryRun: options.dryRun === true },
          nodeFacts: options.nodeFacts === true,
        }, surroundings(context)),
      );
    });

  program.command("adopt")
    .description(
      "take over volumes that are there already: a Perl plugin's, of a former storage id, restored",
    )
    .argument("<storage>", "the storage that is to have them")
    .argument("[zvols...]", "only these, by the last component of their paths")
    .option(
      "--of-cluster <uuid>",
      "also those that carry the marks of this other cluster, which is gone",
    )
    .option("--unexported", "also those that nothing exports; see tnblock rebind")
    .option("--dry-run", "print what would be adopted, and change nothing")
    .option("--yes", "ask nothing")
    .addOption(jsonOption())
    .addOption(outputFormat())
    .addHelpText(
      "after",
      "\nOnly marks are written, on the zvols; data and exports stay as they are.\n\nExamples:\n" +
        "  tnblock adopt san --dry-run          # what would be taken over, and what not and why\n" +
        "  tnblock adopt san vm-100-disk-0      # one volume\n",
    )
    .action(async (storage, volumes, options) => {
      const [{ runAdopt }, { surroundings }] = await Promise.all([
        import("./adopt.ts"),
        import("./surroundings.ts"),
      ]);
      throw new Exit(
        await runAdopt(context, {
          ...{ storage, volumes, ofCluster: options.ofCluster },
          unexported: options.unexported === true,
          json: (options.outputFormat ?? options.output) === "json",
          ...{ yes: options.yes === true, dryRun: options.dryRun === true },
        }, surroundings(context)),
      );
    });

  program.command("rebind")
    .description("export a volume again whose extent or namespace was lost")
    .argument("<storage>", "its storage")
    .argument("<volume>", "its zvol's name, or the name that its guest has for it")
    .option("--dry-run", "print what would change, and change nothing")
    .option("--yes", "ask nothing")
    .addOption(jsonOption())
    .addOption(outputFormat())
    .addHelpText(
      "after",
      "\nA LUN is given again while it is free; an NVMe namespace always gets another uuid, so its name changes.\n" +
        "\nExample:\n  tnblock rebind san vm-100-disk-0\n",
    )
    .action(async (storage, volume, options) => {
      const [{ runRebind }, { surroundings }] = await Promise.all([
        import("./rebind.ts"),
        import("./surroundings.ts"),
      ]);
      throw new Exit(
        await runRebind(context, {
          ...{ storage, volume },
          json: (options.outputFormat ?? options.output) === "json",
          ...{ yes: options.yes === true, dryRun: options.dryRun === true },
        }, surroundings(context)),
      );
    });

  program.command("migrate")
    .description("move a storage from the Perl plugin to tnblock, or back, with guests running")
    .argument("<storage>", "its id, which stays")
    .option("--back", "from tnblock to the Perl plugin")
    .option("--trust <fingerprint>", "SHA-256 of TrueNAS's certificate, where any was accepted")
    .option("--dry-run", "print what becomes of each option, and change nothing")
    .option("--yes", "ask nothing")
    .addOption(new Option("--node-facts", "what another node asks for").hideHelp())
    .addOption(new Option("--node-attach", "what another node asks for").hideHelp())
    .addOption(jsonOption())
    .addOption(outputFormat())
    .addHelpText(
      "after",
      "\nAll nodes of the cluster must be online, have this version, and run no task. When the storage does not\n" +
        "work on all of them afterwards, everything is put back.\n\nExamples:\n" +
        "  tnblock migrate san --dry-run   # what becomes of each option, and what would be done\n" +
        "  tnblock migrate --back san      # the way back\n",
    )
    .action(async (storage, options) => {
      const [{ runMigrate }, { VERSION }, { surroundings }] = await Promise.all([
        import("./migrate.ts"),
        import("./version.ts"),
        import("./surroundings.ts"),
      ]);
      throw new Exit(
        await runMigrate(context, {
          ...{ storage, back: options.back === true, trust: options.trust },
          json: (options.outputFormat ?? options.output) === "json",
          ...{ yes: options.yes === true, dryRun: options.dryRun === true },
          nodeFacts: options.nodeFacts === true,
          nodeAttach: options.nodeAttach === true,
        }, { ...surroundings(context), version: VERSION }),
      );
    });

  const setup = program.command("setup")
    .description("set up a storage, question by question; every answer has a flag")
    .option("--edit <storage>", "change a storage instead")
    .option(
      "--remove <storage>",
      "take a storage out of Proxmox VE; nothing on the array is touched",
    )
    .option("--answers <file>", "take answers from this JSON file")
    .option("--print-answers", "print the answers for --answers; no secret is among them")
    .option("--dry-run", "print the plan, and change nothing")
    .option("--yes", "ask nothing at the end")
    .addOption(new Option("--node-facts", "what another node asks for").hideHelp())
    .addOption(new Option("--make-identity", "with --node-facts").hideHelp())
    .addOption(jsonOption())
    .addOption(outputFormat())
    .addHelpText(
      "after",
      "\nExamples:\n  tnblock setup                                    # asks everything\n" +
        "  tnblock setup --answers a.json --dry-run         # what would be done\n" +
        "  tnblock setup --answers a.json --api-key-file - --yes < key\n",
    );
  for (const [name, value, about] of SETUP_ANSWERS) setup.option(`--${name} <${value}>`, about);
  setup.action(async (options) => {
    const [{ answersOf, runSetup }, { VERSION }, { asker }, { default: process }] = await Promise
      .all([
        import("./setup.ts"),
        import("./version.ts"),
        import("./asker.ts"),
        import("node:process"),
      ]);
    throw new Exit(
      await runSetup(context, {
        json: (options.outputFormat ?? options.output) === "json",
        ...{ yes: options.yes === true, dryRun: options.dryRun === true },
        ...{ answers: options.answers, printAnswers: options.printAnswers === true },
        ...{ given: answersOf(options), nodeFacts: options.nodeFacts === true },
        makeIdentity: options.makeIdentity === true,
        ...{ edit: options.edit, remove: options.remove },
      }, {
        version: VERSION,
        asker: asker({ input: process.stdin, output: process.stderr }),
        isTerminal: process.stdin.isTTY === true && process.stderr.isTTY === true,
      }),
    );
  });

  program.command("hook")
    .description("answer one request of the Proxmox VE shim: a JSON line in, a JSON line out")
    .option("--direct", "do the work here although a daemon runs (also TNBLOCK_DIRECT=1)")
    .action(async (options) => {
      const { runHook } = await import("./hook.ts");
      throw new Exit(await runHook(context, { direct: options.direct === true }));
    });

  program.command("daemon")
    .description("answer the shim's requests over one session with each array (systemd runs this)")
    .option("--print-units", "print the systemd units of the daemon, and end")
    .action(async (options) => {
      const { printUnits, runDaemon } = await import("./daemon.ts");
      if (options.printUnits === true) return printUnits(context);
      throw new Exit(await runDaemon(context));
    });

  program.command("demo")
    .description("show a whole disk life over both transports against a simulated TrueNAS and node")
    .addOption(jsonOption())
    .addOption(outputFormat())
    .addOption(
      new Option("--truenas <release>", "release to simulate").choices(["25.10", "26"] as const)
        .default("25.10" as const),
    )
    .addOption(
      new Option("--faults <json>", "faults for the simulator, as POST /faults takes them")
        .hideHelp(),
    )
    .action(async (options) => {
      const { runDemo } = await import("./demo.ts");
      throw new Exit(
        await runDemo(context, {
          json: (options.outputFormat ?? options.output) === "json",
          release: options.truenas,
          faults: options.faults,
        }),
      );
    });

  program.command("simulate")
    .description("run a simulated TrueNAS to try things against")
    .option("--listen <address>", "address and port of the API", "127.0.0.1:0")
    .addOption(
      new Option("--truenas <release>", "release to simulate").choices(
        ["25.04", "25.10.0", "25.10", "26"] as const,
      ).default("25.10" as const),
    )
    .addOption(
      new Option("--latency <profile>", "service times").choices(["none", "lan", "slow"] as const)
        .default("none" as const),
    )
    .option("--host <dir>", "also play the Proxmox node, in this folder")
    .option("--volumes <count>", "start with this many volumes")
    .option("--login-limit <count>", "logins a minute instead of 20; 0 for none")
    .option("--empty", "start with a pool and users, and nothing else")
    .option("--kernel", "export for real, through nvmet and LIO of this kernel (root)")
    .option("--data <dir>", "with --kernel: folder for the volumes, on a file system with reflinks")
    .option("--netns <name>", "with --kernel: network namespace that the target side listens in")
    .option(
      "--portals <addresses>",
      "with --kernel: addresses of the target side, separated by commas",
    )
    .action(async (options) => {
      const { runSimulateCommand } = await import("./simulate_command.ts");
      throw new Exit(await runSimulateCommand(context, options));
    });

  program.command("completions")
    .description("print the completions for a shell")
    .addArgument(new Argument("<shell>", "which one").choices(["bash", "zsh", "fish"] as const))
    .action(async (shell) => {
      const { completionScript } = await import("./completions.ts");
      context.out(completionScript(shell));
    });

  program.command("complete", { hidden: true })
    .argument("[words...]", "the line so far, after --")
    .action(async (words) => {
      const [{ complete }, { linuxHost }] = await Promise.all([
        import("./completions.ts"),
        import("../host/linux.ts"),
      ]);
      // Whatever goes wrong: a person is typing.
      const text = await complete(program, words, linuxHost({ root: context.root }))
        .catch(() => "");
      context.out(text);
    });

  program.command("help")
    .description("print the help of a command, or on a topic")
    .argument("[subject]", "a command, or exit-codes, environment, files")
    .action(async (subject) => {
      const { runHelp } = await import("./help.ts");
      throw new Exit(runHelp(program, subject, context));
    });

  addHelp(program);
  return program;
}
