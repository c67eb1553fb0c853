// Reads deploy/asyncapi.yaml with AsyncAPI's own parser; says what is wrong with it, and fails (1) if anything is.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Parser } from "@asyncapi/parser";

const file = fileURLToPath(new URL("../asyncapi.yaml", import.meta.url));
const { document, diagnostics } = await new Parser().parse(readFileSync(file, "utf8"), { source: file });

// Errors and warnings; what comes after is advice. Examples are held to their schemas by the tests.
const faults = diagnostics.filter(({ severity }) => severity <= 1);
for (const { code, message, path, range } of faults) {
  console.error(`line ${range.start.line + 1}: ${path.join("/")}: ${message} (${code})`);
}
const bad = document === undefined || faults.length > 0;
if (!bad) {
  const messages = document.allMessages().all().length;
  console.log(`AsyncAPI ${document.version()}: ${document.channels().all().length} channels, ${messages} messages`);
}
process.exit(bad ? 1 : 0);
