/** The Perl shim as a text: the binary carries it, so that one file is all that a node needs. */
import text from "./TnblockPlugin.pm" with { type: "text" };

/** The source of `PVE::Storage::Custom::TnblockPlugin`. */
export const SHIM: string = text;
