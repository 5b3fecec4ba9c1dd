import { contract } from "./contract.ts";

contract({ transport: "nvme-tcp", release: "25.10.0" });
