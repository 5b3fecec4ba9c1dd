import { contract } from "./contract.ts";

contract({ transport: "nvme-tcp", release: "26", byDaemon: true });
