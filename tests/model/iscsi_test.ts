import { agreement } from "./agreement.ts";

agreement("iscsi");
