import { contract } from "./contract.ts";

contract({ transport: "iscsi", release: "25.10", byDaemon: true });
