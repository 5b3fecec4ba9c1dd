import { agreement } from "./agreement.ts";

agreement("nvme-tcp");
