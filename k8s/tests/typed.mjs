// Types as a strict schema for custom resources.
//
// Each object becomes a typed literal of the published types of its kind, and TypeScript
// says what is unknown, missing or of the wrong type. A validator generated from the same
// CRDs would let unknown fields pass.
//
//   node typed.mjs MODULES < OBJECTS.json      exit 1 and one line per mistake
//
// MODULES is the folder whose node_modules has the packages of typed-packages.json.
import { createRequire } from 'node:module';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const modules = path.resolve(process.argv[2]);
const ts = createRequire(path.join(modules, 'x.js'))('typescript');

const PACKAGES = {
  'networking.istio.io': '@kubernetes-models/istio',
  'security.istio.io': '@kubernetes-models/istio',
  'monitoring.coreos.com': '@kubernetes-models/prometheus-operator',
  'argoproj.io': '@kubernetes-models/argo-rollouts',
  'external-secrets.io': '@kubernetes-models/external-secrets',
};

const objects = JSON.parse(readFileSync(0, 'utf8'));
const lines = [];
const names = [];
let imports = '';
for (const { source, object } of objects) {
  const [group, version] = object.apiVersion.split('/');
  const name = `${source}: ${object.kind} ${object.metadata.name}`;
  if (!(group in PACKAGES)) {
    console.log(`${name}: no types are known for ${object.apiVersion}`);
    process.exitCode = 1;
    continue;
  }
  const type = `I${object.kind}`;
  const alias = `T${names.length}`;
  imports += `import type { ${type} as ${alias} } from '${PACKAGES[group]}/${group}/${version}/${object.kind}';\n`;
  lines.push(`export const v${names.length}: ${alias} = ${JSON.stringify(object)};\n`);
  names.push(name);
}

// Where a field excludes another, the types say `{...} & Exclude<...>`, and TypeScript does
// not look for unknown fields inside that. Without its second half it does. So each object
// is checked twice: against the types as they are, and against these.
function withoutExclusions(text) {
  const page = ts.createSourceFile('x.d.ts', text, ts.ScriptTarget.Latest, true);
  const cuts = [];
  const visit = (node) => {
    if (ts.isIntersectionTypeNode(node) && node.types.slice(1).some((it) => it.getText().startsWith('(Exclude<'))) {
      cuts.push([node.types[0].end, node.end]);
      visit(node.types[0]);
    } else {
      ts.forEachChild(node, visit);
    }
  };
  visit(page);
  for (const [from, to] of cuts.sort((a, b) => b[0] - a[0])) text = text.slice(0, from) + text.slice(to);
  return text;
}

const options = {
  noEmit: true, strict: true, skipLibCheck: true, types: [],
  module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext,
};
const strict = ts.createCompilerHost(options);
const readSourceFile = strict.getSourceFile.bind(strict);
strict.getSourceFile = (name, version, ...rest) => {
  const text = name.includes('/@kubernetes-models/') && name.endsWith('.d.ts') ? strict.readFile(name) : undefined;
  return text?.includes('Exclude<') ? ts.createSourceFile(name, withoutExclusions(text), version, true) : readSourceFile(name, version, ...rest);
};

// Beside node_modules, where imports are looked for.
const file = path.join(modules, `typed-${process.pid}.mts`);
const said = new Set();
writeFileSync(file, imports + lines.join(''));
try {
  const first = imports.split('\n').length - 1;
  for (const host of [undefined, strict]) {
    for (const found of ts.getPreEmitDiagnostics(ts.createProgram([file], options, host))) {
      const line = found.file ? found.file.getLineAndCharacterOfPosition(found.start).line : -1;
      const name = names[line < first ? line : line - first] ?? 'typed.mjs';
      // The innermost line of the explanation names the field.
      const text = ts.flattenDiagnosticMessageText(found.messageText, '\n').trim().split('\n');
      said.add(`${name}: ${text[0].slice(0, 300)}${text.length > 1 ? ` (${text.at(-1).trim()})` : ''}`);
    }
  }
} finally {
  rmSync(file);
}
for (const one of said) console.log(one);
if (said.size) process.exitCode = 1;
if (!process.exitCode) console.error(`typed: ${names.length} objects agree with their types`);
