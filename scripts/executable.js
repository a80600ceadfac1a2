// tsc writes files without the executable bit; npm sets it on install, a checkout needs it set here.
import { chmodSync } from "node:fs";

for (const file of process.argv.slice(2)) chmodSync(file, 0o755);
