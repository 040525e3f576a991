'use strict';
// A provider's schema, read from the typings of its npm package @cdktf/provider-NAME.
//
// Owns: which package stands for which provider, the conversion, the cache.
// Never: runs terraform, writes anywhere but into the cache and a temporary folder.
const fs = require('fs'), os = require('os'), path = require('path'), cp = require('child_process');

// A schema for another provider: add its npm package here, at the version to check against.
const PACKAGES = {
  aws: '@cdktf/provider-aws@21.22.1',
  random: '@cdktf/provider-random@12.0.1',
  archive: '@cdktf/provider-archive@11.0.1',
  tls: '@cdktf/provider-tls@11.0.1',
  time: '@cdktf/provider-time@11.0.1',
  kubernetes: '@cdktf/provider-kubernetes@12.1.1',
  helm: '@cdktf/provider-helm@12.1.2',
};
const FORMAT = 5; // of the cached schema files

// schema: {attrs: {name: {t, r?, o?, c?, w?, n?}}, blocks: {name: {m, min, max, b}}}
//   t type in terraform's JSON form; r required, o optional, c computed, w write-only
//   n nested attribute: {m: mode, s: schema};  m 1 single, 2 list, 3 set, 4 map

const SIMPLE = { string: 'string', number: 'number', boolean: 'bool', any: 'dynamic' };
function scalarType(cls) {
  const lower = cls.toLowerCase();
  for (const k of Object.keys(SIMPLE)) {
    if (lower === k) return SIMPLE[k];
    if (lower === k + 'map') return ['map', SIMPLE[k]];
    if (lower === k + 'list') return ['list', SIMPLE[k]];
    if (lower === k + 'mapmap') return ['map', ['map', SIMPLE[k]]];
    if (lower === k + 'listlist') return ['list', ['list', SIMPLE[k]]];
    if (lower === k + 'maplist') return ['list', ['map', SIMPLE[k]]];
    if (lower === k + 'listmap') return ['map', ['list', SIMPLE[k]]];
  }
  return null;
}

function sourceOf(file) {
  const js = fs.readFileSync(file, 'utf8');
  const at = js.lastIndexOf('sourceMappingURL=data:application/json;base64,');
  if (at < 0) return '';
  const map = JSON.parse(Buffer.from(js.slice(js.indexOf('base64,', at) + 7).trim(), 'base64').toString());
  return map.sourcesContent.join('\n');
}

function parseTypings(text, nestedAttributes) {
  const classes = new Map(), hcl = new Map(), blockNames = new Map(), fields = new Map();
  let mainName = null, tfType = null, kind = null;
  for (const m of text.matchAll(/^export class (\w+) extends cdktf\.(\w+) \{\n([\s\S]*?)^\}/gm)) {
    const [, name, base, body] = m;
    if (base === 'TerraformResource' || base === 'TerraformDataSource' || base === 'TerraformProvider') {
      mainName = name; kind = base;
      tfType = (/tfResourceType = "([^"]+)"/.exec(body) || [])[1];
      const cut = body.indexOf('synthesizeHclAttributes');
      if (cut >= 0) hcl.set(name.toLowerCase(), hclEntries(body.slice(cut)));
    }
    classes.set(name, { base, body });
  }
  if (!mainName) return null;
  for (const m of text.matchAll(/^export function (\w+)ToHclTerraform\([^\n]*\n([\s\S]*?)^\}/gm)) hcl.set(m[1].toLowerCase(), hclEntries(m[2]));
  for (const m of text.matchAll(/^export interface (\w+)[^\n]*\{\n([\s\S]*?)^\}/gm))
  {
    blockNames.set(m[1].toLowerCase(), new Set([...m[2].matchAll(/^  \* (\w+) block$/gm)].map((x) => x[1])));
    fields.set(m[1].toLowerCase(), new Map([...m[2].matchAll(/^  readonly (\w+)(\??):/gm)].map((x) => [x[1].toLowerCase(), x[2] === '?'])));
  }
  const configOf = (/constructor\(scope: Construct, id: string, config: (\w+)/.exec(classes.get(mainName).body) || [])[1] || mainName + 'Config';

  function hclEntries(s) {
    const out = new Map();
    for (const e of s.matchAll(/^\s+(\w+): \{\n\s+value: [^\n]*\n\s+isBlock: (\w+),\n\s+type: "(\w+)",\n\s+storageClassType: "(\w+)",/gm))
      out.set(e[1], { type: e[3], cls: e[4] });
    return out;
  }
  function fromHcl(struct) { // blocks of a provider's own configuration have no class
    const key = struct.toLowerCase(), out = { attrs: {}, blocks: {} };
    for (const [name, h] of hcl.get(key) || []) {
      const optional = (fields.get(key) || new Map()).get(name.replace(/_/g, '')) !== false;
      let t = scalarType(h.cls);
      if (t && h.type === 'set' && Array.isArray(t)) t = ['set', t[1]];
      if (t) out.attrs[name] = optional ? { t, o: 1 } : { t, r: 1 };
      else out.blocks[name] = { m: h.type === 'set' ? 3 : 2, min: 0, max: 0, b: fromHcl(h.cls.replace(/List$/, '')) };
    }
    return out;
  }
  function convert(className, infoKey, blocksKey) {
    const cls = classes.get(className);
    const out = { attrs: {}, blocks: {} };
    if (!cls) return out;
    const info = hcl.get(infoKey) || new Map(), blocks = blockNames.get(blocksKey) || new Set();
    const parts = cls.body.split(/^  \/\/ (\w+) - computed: (true|false), optional: (true|false), required: (true|false)$/m);
    for (let i = 1; i + 4 < parts.length + 1; i += 5) {
      const name = parts[i], a = {}, chunk = parts[i + 4].split('// ==========')[0];
      if (parts[i + 1] === 'true') a.c = 1;
      if (parts[i + 2] === 'true') a.o = 1;
      if (parts[i + 3] === 'true') a.r = 1;
      const h = info.get(name), isBlock = blocks.has(name);
      const ref = /= new (?:cdktf\.)?(\w+)\(this, "[^"]*"(?:, (true|false))?/.exec(chunk) || /return new (?:cdktf\.)?(\w+)\(this, "[^"]*"(?:, (true|false))?/.exec(chunk);
      if (ref && classes.has(ref[1])) {
        const many = classes.get(ref[1]).base === 'ComplexList' || classes.get(ref[1]).base === 'ComplexMap';
        const asMap = classes.get(ref[1]).base === 'ComplexMap';
        const struct = many ? ref[1].replace(/(List|Map)$/, '') : ref[1].replace(/OutputReference$/, '');
        const inner = convert(struct + 'OutputReference', struct.toLowerCase(), struct.toLowerCase());
        const set = ref[2] === 'true' || (h && h.type === 'set');
        if (isBlock) {
          const single = h && h.type === 'struct';
          out.blocks[name] = { m: single ? 1 : set ? 3 : 2, min: a.r && !single ? 1 : 0, max: many || single ? 0 : 1, b: inner };
          continue;
        }
        const mode = asMap ? 4 : many ? (set ? 3 : 2) : 1;
        if (nestedAttributes && (a.o || a.r)) a.n = { m: mode, s: inner };
        else {
          const obj = ['object', Object.fromEntries(Object.entries(inner.attrs).map(([k, v]) => [k, v.t || 'dynamic']))];
          a.t = mode === 1 ? (h && h.type === 'list' ? ['list', obj] : obj) : [mode === 4 ? 'map' : mode === 3 ? 'set' : 'list', obj];
        }
      } else if (isBlock && h && h.cls === 'any') {
        out.blocks[name] = { m: 2, min: a.r ? 1 : 0, max: 1, any: 1 };
        continue;
      } else if (h && scalarType(h.cls)) {
        a.t = scalarType(h.cls);
        if (h.type === 'set' && Array.isArray(a.t)) a.t = ['set', a.t[1]];
      } else if (isBlock && h) {
        out.blocks[name] = { m: h.type === 'struct' ? 1 : h.type === 'set' ? 3 : 2, min: a.r && h.type !== 'struct' ? 1 : 0, max: 0, b: fromHcl(h.cls.replace(/List$/, '')) };
        continue;
      } else if (ref) {
        a.t = scalarType(ref[1]) || 'dynamic';
      } else {
        const set = /Fn\.tolist\(/.test(chunk);
        if (/asNumberList|getNumberListAttribute/.test(chunk)) a.t = [set ? 'set' : 'list', 'number'];
        else if (/getListAttribute/.test(chunk)) a.t = [set ? 'set' : 'list', 'string'];
        else if (/getStringMapAttribute/.test(chunk)) a.t = ['map', 'string'];
        else if (/getNumberMapAttribute/.test(chunk)) a.t = ['map', 'number'];
        else if (/getBooleanMapAttribute/.test(chunk)) a.t = ['map', 'bool'];
        else if (/getNumberAttribute/.test(chunk)) a.t = 'number';
        else if (/getBooleanAttribute/.test(chunk)) a.t = 'bool';
        else if (/getStringAttribute/.test(chunk)) a.t = 'string';
        else a.t = 'dynamic';
      }
      if (/_wo$/.test(name) && !a.c) a.w = 1;
      out.attrs[name] = a;
    }
    return out;
  }
  const schema = convert(mainName, mainName.toLowerCase(), configOf.toLowerCase());
  return { tfType, kind, schema };
}

// WAFv2 statements nest without end and are untyped in the typings: this is their table.
function wafStatement(depth) {
  const S = 'string', opt = (t) => ({ t, o: 1 }), req = (t) => ({ t, r: 1 });
  const one = (b, min) => ({ m: 2, min: min ? 1 : 0, max: 1, b });
  const many = (b, min, set) => ({ m: set ? 3 : 2, min: min ? 1 : 0, max: 0, b });
  const none = { attrs: {}, blocks: {} };
  const named = (...names) => ({ attrs: {}, blocks: Object.fromEntries(names.map((n) => [n, one(none)])) });
  const oversize = { oversize_handling: opt(S) };
  const field = { attrs: {}, blocks: {
    all_query_arguments: one(none), method: one(none), query_string: one(none), uri_path: one(none),
    body: one({ attrs: oversize, blocks: {} }),
    cookies: one({ attrs: { match_scope: req(S), oversize_handling: req(S) }, blocks: { match_pattern: one({ attrs: { included_cookies: opt(['list', S]), excluded_cookies: opt(['list', S]) }, blocks: { all: one(none) } }, 1) } }),
    header_order: one({ attrs: { oversize_handling: req(S) }, blocks: {} }),
    headers: one({ attrs: { match_scope: req(S), oversize_handling: req(S) }, blocks: { match_pattern: one({ attrs: { included_headers: opt(['list', S]), excluded_headers: opt(['list', S]) }, blocks: { all: one(none) } }, 1) } }),
    ja3_fingerprint: one({ attrs: { fallback_behavior: req(S) }, blocks: {} }),
    ja4_fingerprint: one({ attrs: { fallback_behavior: req(S) }, blocks: {} }),
    uri_fragment: one({ attrs: { fallback_behavior: opt(S) }, blocks: {} }),
    json_body: one({ attrs: { match_scope: req(S), oversize_handling: opt(S), invalid_fallback_behavior: opt(S) }, blocks: { match_pattern: one({ attrs: { included_paths: opt(['list', S]) }, blocks: { all: one(none) } }, 1) } }),
    single_header: one({ attrs: { name: req(S) }, blocks: {} }), single_query_argument: one({ attrs: { name: req(S) }, blocks: {} }) } };
  const match = (attrs) => one({ attrs, blocks: { field_to_match: one(field), text_transformation: many({ attrs: { priority: req('number'), type: req(S) }, blocks: {} }, 1, true) } });
  const forwarded = { attrs: { fallback_behavior: req(S), header_name: req(S) }, blocks: {} };
  const transformed = { attrs: { name: req(S) }, blocks: { text_transformation: many({ attrs: { priority: req('number'), type: req(S) }, blocks: {} }, 1, true) } };
  const bare = { attrs: {}, blocks: { text_transformation: transformed.blocks.text_transformation } };
  const actions = { attrs: {}, blocks: Object.fromEntries(['allow', 'block', 'captcha', 'challenge', 'count'].map((a) => [a, one({ attrs: {}, blocks: a === 'block'
    ? { custom_response: one({ attrs: { response_code: req('number'), custom_response_body_key: opt(S) }, blocks: { response_header: many({ attrs: { name: req(S), value: req(S) }, blocks: {} }, 0, true) } }) }
    : { custom_request_handling: one({ attrs: {}, blocks: { insert_header: many({ attrs: { name: req(S), value: req(S) }, blocks: {} }, 1, true) } }) } })])) };
  const inspection = (bot) => ({ attrs: bot ? { inspection_level: req(S), enable_machine_learning: opt('bool') } : {}, blocks: {} });
  const managedConfig = { attrs: { login_path: opt(S), payload_type: opt(S) }, blocks: {
    aws_managed_rules_bot_control_rule_set: one(inspection(true)),
    aws_managed_rules_anti_ddos_rule_set: one({ attrs: { sensitivity_to_block: opt(S) }, blocks: { client_side_action_config: one({ attrs: {}, blocks: { challenge: one({ attrs: { sensitivity: opt(S), usage_of_action: req(S) }, blocks: { exempt_uri_regular_expression: many({ attrs: { regex_string: opt(S) }, blocks: {} }) } }, 1) } }, 1) } }),
    password_field: one({ attrs: { identifier: req(S) }, blocks: {} }), username_field: one({ attrs: { identifier: req(S) }, blocks: {} }) } };
  const blocks = {
    byte_match_statement: match({ positional_constraint: req(S), search_string: req(S) }),
    regex_match_statement: match({ regex_string: req(S) }),
    regex_pattern_set_reference_statement: match({ arn: req(S) }),
    size_constraint_statement: match({ comparison_operator: req(S), size: req('number') }),
    sqli_match_statement: match({ sensitivity_level: opt(S) }),
    xss_match_statement: match({}),
    geo_match_statement: one({ attrs: { country_codes: req(['list', S]) }, blocks: { forwarded_ip_config: one(forwarded) } }),
    asn_match_statement: one({ attrs: { asn_list: req(['list', 'number']) }, blocks: { forwarded_ip_config: one(forwarded) } }),
    ip_set_reference_statement: one({ attrs: { arn: req(S) }, blocks: { ip_set_forwarded_ip_config: one({ attrs: { ...forwarded.attrs, position: req(S) }, blocks: {} }) } }),
    label_match_statement: one({ attrs: { key: req(S), scope: req(S) }, blocks: {} }),
    rule_group_reference_statement: one({ attrs: { arn: req(S) }, blocks: { rule_action_override: many({ attrs: { name: req(S) }, blocks: { action_to_use: one(actions, 1) } }) } }),
    managed_rule_group_statement: one({ attrs: { name: req(S), vendor_name: req(S), version: opt(S) }, blocks: {
      managed_rule_group_configs: many(managedConfig), rule_action_override: many({ attrs: { name: req(S) }, blocks: { action_to_use: one(actions, 1) } }) } }),
    rate_based_statement: one({ attrs: { limit: req('number'), aggregate_key_type: opt(S), evaluation_window_sec: opt('number') }, blocks: {
      forwarded_ip_config: one(forwarded),
      custom_key: many({ attrs: {}, blocks: { ...named('forwarded_ip', 'http_method', 'ip').blocks, cookie: one(transformed), header: one(transformed), query_argument: one(transformed), query_string: one(bare), uri_path: one(bare),
        label_namespace: one({ attrs: { namespace: req(S) }, blocks: {} }), asn: one(none), ja3_fingerprint: one({ attrs: { fallback_behavior: req(S) }, blocks: {} }), ja4_fingerprint: one({ attrs: { fallback_behavior: req(S) }, blocks: {} }) } }) } }),
  };
  if (depth > 0) {
    const inner = wafStatement(depth - 1);
    blocks.and_statement = one({ attrs: {}, blocks: { statement: many(inner, 1) } });
    blocks.or_statement = one({ attrs: {}, blocks: { statement: many(inner, 1) } });
    blocks.not_statement = one({ attrs: {}, blocks: { statement: many(inner, 1) } });
    for (const k of ['rate_based_statement', 'managed_rule_group_statement']) blocks[k].b.blocks.scope_down_statement = one(inner);
  }
  return { attrs: {}, blocks };
}
function fillUntyped(tfType, schema) {
  for (const [name, blk] of Object.entries(schema.blocks)) {
    if (!blk.any) { fillUntyped(tfType, blk.b); continue; }
    if (/^aws_wafv2_/.test(tfType || '') && /statement$/.test(name)) { blk.b = wafStatement(2); blk.min = 1; }
    else blk.b = { attrs: {}, blocks: {} };
    delete blk.any;
  }
}

// Ephemeral resources are in no typing: this is the table of those that this repository uses.
const str = (how) => ({ t: 'string', ...how }), OPT = { o: 1 }, OUT = { c: 1 };
const EPHEMERAL = {
  aws: {
    aws_secretsmanager_random_password: { attrs: { password_length: { t: 'number', o: 1 }, exclude_characters: str(OPT), exclude_punctuation: { t: 'bool', o: 1 }, region: str(OPT), random_password: str(OUT) }, blocks: {} },
    aws_secretsmanager_secret_version: { attrs: { secret_id: str({ r: 1 }), version_id: str({ o: 1, c: 1 }), version_stage: str(OPT), region: str(OPT), arn: str(OUT), created_date: str(OUT), secret_binary: str(OUT), secret_string: str(OUT) }, blocks: {} },
  },
};

function npmSchema(name, cache, offline) {
  const spec = PACKAGES[name];
  if (!spec) throw new Error(`no schema package is known for provider "${name}"; known: ${Object.keys(PACKAGES).join(', ')}. Add it to PACKAGES in tfcheck.`);
  const file = path.join(cache, `${spec.replace(/^@/, '').replace(/[/@]/g, '-')}.v${FORMAT}.json`);
  if (fs.existsSync(file)) return JSON.parse(fs.readFileSync(file, 'utf8'));
  if (offline) throw new Error(`the schema of provider "${name}" is not in the cache ${cache} (left out by --offline)`);
  process.stderr.write(`tfcheck: building the schema of provider "${name}" from ${spec} (once)\n`);
  fs.mkdirSync(cache, { recursive: true });
  const tmp = fs.mkdtempSync(path.join(os.tmpdir(), 'tfcheck-npm-'));
  try {
    const packed = cp.spawnSync('npm', ['pack', spec, '--silent', '--pack-destination', tmp], { cwd: tmp, encoding: 'utf8' });
    const tgz = fs.readdirSync(tmp).find((f) => f.endsWith('.tgz'));
    if (packed.status !== 0 || !tgz) throw new Error(`npm could not fetch ${spec}: ${(packed.stderr || '').trim()}`);
    const tar = cp.spawnSync('tar', ['xzf', tgz, '--wildcards', 'package/lib/*.js', 'package/package.json'], { cwd: tmp, encoding: 'utf8' });
    if (tar.status !== 0) throw new Error(`tar could not unpack ${spec}: ${tar.stderr.trim()}`);
    const pkg = JSON.parse(fs.readFileSync(path.join(tmp, 'package/package.json'), 'utf8'));
    const out = { address: pkg.cdktf.provider.name, version: pkg.cdktf.provider.version, provider: null, resources: {}, data: {} };
    const lib = path.join(tmp, 'package/lib');
    for (const d of fs.readdirSync(lib)) {
      const dir = path.join(lib, d);
      if (!fs.statSync(dir).isDirectory()) continue;
      let text = fs.existsSync(path.join(dir, 'index.js')) ? sourceOf(path.join(dir, 'index.js')) : '';
      const more = path.join(dir, 'index-structs');
      if (fs.existsSync(more)) for (const f of fs.readdirSync(more)) if (f.endsWith('.js')) text += '\n' + sourceOf(path.join(more, f));
      const p = text && parseTypings(text, name !== 'aws');
      if (!p) continue;
      fillUntyped(p.tfType, p.schema);
      if (p.kind === 'TerraformProvider') out.provider = p.schema;
      else (p.kind === 'TerraformDataSource' ? out.data : out.resources)[p.tfType] = p.schema;
    }
    if (!out.provider || !(Object.keys(out.resources).length + Object.keys(out.data).length)) throw new Error(`${spec} holds no typings in a form that tfcheck knows`);
    fs.writeFileSync(file + '.tmp', JSON.stringify(out));
    fs.renameSync(file + '.tmp', file);
    return out;
  } finally { fs.rmSync(tmp, { recursive: true, force: true }); }
}

module.exports = { npmSchema, EPHEMERAL };
