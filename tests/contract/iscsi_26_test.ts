import { contract } from "./contract.ts";

contract({ transport: "iscsi", release: "26" });
