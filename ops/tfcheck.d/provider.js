'use strict';
// The stand-in provider: terraform's plugin protocol 6, answered from a schema.
//
// Never: talks to a cloud. What a cloud would choose is invented, except that IAM policy
// documents are rendered as the real provider renders them.
const fs = require('fs'), os = require('os'), path = require('path');
const { Ext, UNKNOWN, field, msg, parseMsg, unpack, pack } = require('./wire.js');

function schemaMsg(s) {
  const attrMsg = ([name, a]) => msg(field(1, name), a.n ? field(10, objMsg(a.n)) : field(2, JSON.stringify(a.t)), field(4, !!a.r), field(5, !!a.o), field(6, !!a.c), field(11, !!a.w));
  const objMsg = (n) => msg(...Object.entries(n.s.attrs).map((e) => field(1, attrMsg(e))), field(3, n.m));
  const blockMsg = (b) => msg(...Object.entries(b.attrs).map((e) => field(2, attrMsg(e))),
    ...Object.entries(b.blocks).map(([name, n]) => field(3, msg(field(1, name), field(2, blockMsg(n.b)), field(3, n.m), field(4, n.min), field(5, n.max)))));
  return msg(field(2, blockMsg(s)));
}
const ZONES = ['a', 'b', 'c'];
// Terraform runs one provider process per configuration, so each knows its own region.
let region = 'us-east-1', defaultTags = new Map();
const ACCOUNT = '123456789012';
// Where an invented value must have a form that configurations rely on.
const FORMS = {
  'random_password.result': () => 'x'.repeat(40),
  'aws_serverlessapplicationrepository_cloudformation_stack.outputs': () => new Map([['RotationLambdaARN', `arn:aws:lambda:${region}:${ACCOUNT}:function:rotation`]]),
};
// ARNs as AWS forms them, for whatever policies name: what is invented for the others says "stub".
const ARNS = {
  aws_cloudwatch_log_group: (v) => `logs:${region}:${ACCOUNT}:log-group:${v('name')}`,
  aws_cloudwatch_metric_alarm: (v) => `cloudwatch:${region}:${ACCOUNT}:alarm:${v('alarm_name')}`,
  aws_ecr_repository: (v) => `ecr:${region}:${ACCOUNT}:repository/${v('name')}`,
  aws_kms_key: (v, seed) => `kms:${region}:${ACCOUNT}:key/${seed}`,
  aws_lambda_function: (v) => `lambda:${region}:${ACCOUNT}:function:${v('function_name')}`,
  aws_network_acl: (v, seed) => `ec2:${region}:${ACCOUNT}:network-acl/acl-${seed}`,
  aws_rds_cluster: (v) => `rds:${region}:${ACCOUNT}:cluster:${v('cluster_identifier')}`,
  aws_rds_global_cluster: (v) => `rds::${ACCOUNT}:global-cluster:${v('global_cluster_identifier')}`,
  aws_s3_bucket: (v) => `s3:::${v('bucket')}`,
  aws_sns_topic: (v) => `sns:${region}:${ACCOUNT}:${v('name')}`,
  aws_sqs_queue: (v) => `sqs:${region}:${ACCOUNT}:${v('name')}`,
  aws_subnet: (v, seed) => `ec2:${region}:${ACCOUNT}:subnet/subnet-${seed}`,
};
function stubValue(t, type, name, seed, values) {
  if (FORMS[`${type}.${name}`]) return FORMS[`${type}.${name}`]();
  if (name === 'id' && type === 'aws_s3_bucket') return values.get('bucket');
  if (name === 'arn' && ARNS[type] && values) return `arn:aws:${ARNS[type]((key) => values.get(key), seed)}`;
  if (t === 'string') return name === 'arn' || /_arn$/.test(name) ? `arn:aws:stub:${region}:${ACCOUNT}:${type}/${seed}` : name === 'account_id' || name === 'owner_id' ? ACCOUNT
    : name === 'partition' ? 'aws' : name === 'dns_suffix' ? 'amazonaws.com' : name === 'region' ? region : `stub-${type}-${name}-${seed}`;
  if (t === 'number') return 1; if (t === 'bool') return false; if (t === 'dynamic') return null;
  if (t[0] === 'list' || t[0] === 'set') return [stubValue(t[1], type, name, seed)];
  if (t[0] === 'map') return new Map();
  return new Map(Object.entries(t[1]).map(([k, v]) => [k, stubValue(v, type, k, seed)]));
}
function complete(s, v, pick) { // give each unset computed attribute pick(attr, name)
  if (!(v instanceof Map)) return v;
  for (const [k, a] of Object.entries(s.attrs)) {
    const cur = v.get(k);
    if (a.w) v.set(k, null);
    else if ((cur === null || cur === undefined || cur instanceof Ext) && a.c) v.set(k, pick(a, k, cur));
    else if (cur instanceof Ext) v.set(k, pick(a, k, cur));
  }
  for (const [k, n] of Object.entries(s.blocks)) {
    const cur = v.get(k);
    if (Array.isArray(cur)) cur.forEach((x) => complete(n.b, x, pick)); else if (cur instanceof Map && n.m === 1) complete(n.b, cur, pick);
  }
  return v;
}
const attrType = (a) => a.t || (a.n ? ['list', 'string'] : 'dynamic');
function policyDocument(cfg) {
  const list = (v) => (Array.isArray(v) ? v : []), one = (a) => (a.length === 1 ? a[0] : a);
  const principals = (v) => { const o = {}; for (const p of list(v)) { const ids = [...p.get('identifiers')].sort(); if (p.get('type') === '*') return '*'; o[p.get('type')] = one([...(o[p.get('type')] || []).flat(), ...ids]); } return Object.keys(o).length ? o : undefined; };
  const st = list(cfg.get('statement')).map((s) => {
    const o = {}; if (s.get('sid')) o.Sid = s.get('sid'); o.Effect = s.get('effect') || 'Allow';
    for (const [k, f] of [['Action', 'actions'], ['NotAction', 'not_actions'], ['Resource', 'resources'], ['NotResource', 'not_resources']]) if (list(s.get(f)).length) o[k] = one([...s.get(f)].sort());
    for (const [k, f] of [['Principal', 'principals'], ['NotPrincipal', 'not_principals']]) { const p = principals(s.get(f)); if (p) o[k] = p; }
    for (const c of list(s.get('condition'))) { o.Condition = o.Condition || {}; (o.Condition[c.get('test')] = o.Condition[c.get('test')] || {})[c.get('variable')] = one(c.get('values')); }
    return o;
  });
  const docs = [...list(cfg.get('source_policy_documents')), ...list(cfg.get('override_policy_documents'))].flatMap((d) => { try { return [JSON.parse(d).Statement].flat(); } catch { return []; } });
  return JSON.stringify({ Version: cfg.get('version') || '2012-10-17', ...(cfg.get('policy_id') ? { Id: cfg.get('policy_id') } : {}), Statement: [...docs, ...st] }, null, 2);
}
function serve(stubFile) {
  const http2 = require('http2'), crypto = require('crypto');
  const schema = JSON.parse(fs.readFileSync(stubFile, 'utf8'));
  if (!process.env.TF_PLUGIN_MAGIC_COOKIE) { process.stderr.write('This is a stand-in provider for terraform; terraform starts it.\n'); process.exit(1); }
  const entry = (no, obj) => Object.entries(obj).map(([k, s]) => field(no, msg(field(1, k), field(2, schemaMsg(s)))));
  const dyn = (m, no) => { if (!m[no]) return null; const d = parseMsg(m[no][0]); return d[1] ? unpack(d[1][0]) : null; };
  const dynOut = (v) => field(1, pack(v));
  const str = (m, no) => (m[no] ? m[no][0].toString() : '');
  const rawJson = (t, v) => { // a state's JSON to msgpack values
    if (v === null || v === undefined) return null; if (t === 'dynamic' || typeof t === 'string') return v;
    if (t[0] === 'list' || t[0] === 'set') return v.map((x) => rawJson(t[1], x));
    if (t[0] === 'map') return new Map(Object.entries(v).map(([k, x]) => [k, rawJson(t[1], x)]));
    return new Map(Object.entries(t[1]).map(([k, x]) => [k, rawJson(x, v[k])]));
  };
  const stateFromJson = (s, o) => {
    const m = new Map();
    for (const [k, a] of Object.entries(s.attrs)) m.set(k, a.n ? (o[k] == null ? null : a.n.m === 1 ? stateFromJson(a.n.s, o[k]) : o[k].map((x) => stateFromJson(a.n.s, x))) : rawJson(a.t, o[k]));
    for (const [k, n] of Object.entries(s.blocks)) m.set(k, n.m === 1 ? (o[k] == null ? null : stateFromJson(n.b, o[k])) : (o[k] || []).map((x) => stateFromJson(n.b, x)));
    return m;
  };
  const readOnly = (s, v, at) => { // one diagnostic for each argument that only the provider may set
    const out = [];
    if (!(v instanceof Map)) return out;
    for (const [k, a] of Object.entries(s.attrs)) if (a.c && !a.o && !a.r && v.get(k) !== null && v.get(k) !== undefined)
      out.push(field(1, msg(field(1, 1), field(2, 'Read-only argument'), field(3, `"${k}" is decided by the provider and cannot be set.`), field(4, msg(...[...at, k].map((n) => field(1, msg(field(1, n)))))))));
    for (const [k, n] of Object.entries(s.blocks)) for (const x of [v.get(k)].flat()) out.push(...readOnly(n.b, x, n.m === 1 ? [...at, k] : at));
    return out;
  };
  const calls = {
    GetProviderSchema: () => msg(field(1, schemaMsg(schema.provider)), ...entry(2, schema.resources), ...entry(3, schema.data), field(6, msg(field(1, true))), ...entry(8, schema.ephemeral || {})),
    ValidateProviderConfig: () => msg(), ConfigureProvider: (m) => { const cfg = dyn(m, 2); region = (cfg && cfg.get && typeof cfg.get('region') === 'string' && cfg.get('region')) || region; defaultTags = (cfg && cfg.get && [cfg.get('default_tags')].flat()[0]?.get('tags')) || defaultTags; return msg(); }, StopProvider: () => msg(),
    ValidateResourceConfig: (m) => msg(...readOnly(schema.resources[str(m, 1)], dyn(m, 2), [])),
    ValidateDataResourceConfig: (m) => msg(...readOnly(schema.data[str(m, 1)], dyn(m, 2), [])),
    ValidateEphemeralResourceConfig: () => msg(), RenewEphemeralResource: () => msg(), CloseEphemeralResource: () => msg(),
    // Its fields: 1 diagnostics, 2 when to renew (left out: never), 3 the result.
    OpenEphemeralResource: (m) => {
      const type = str(m, 1), s = schema.ephemeral[type], cfg = dyn(m, 2);
      const v = complete(s, cfg, (a, k) => (k === 'secret_string' ? '{"username":"stub","password":"stub"}' : stubValue(attrType(a), type, k, 'ephemeral')));
      return msg(field(3, dynOut(v)));
    },
    UpgradeResourceState: (m) => msg(field(1, dynOut(stateFromJson(schema.resources[str(m, 1)], JSON.parse(parseMsg(m[3][0])[1][0].toString()))))),
    ReadResource: (m) => msg(field(1, m[2][0])),
    PlanResourceChange: (m) => {
      const s = schema.resources[str(m, 1)], prior = dyn(m, 2), next = dyn(m, 3);
      if (next === null) return msg(field(1, dynOut(null)), field(5, true));
      const v = complete(s, next, (a, k, cur) => cur instanceof Ext ? cur : prior ? (prior.get && prior.get(k) !== undefined && prior.get(k) !== null ? prior.get(k) : null) : UNKNOWN);
      return msg(field(1, dynOut(v)), field(5, true));
    },
    ApplyResourceChange: (m) => {
      const type = str(m, 1), s = schema.resources[type], next = dyn(m, 3);
      if (next === null) return msg(field(1, dynOut(null)), field(4, true));
      const seed = crypto.createHash('sha1').update(m[3][0]).digest('hex').slice(0, 8);
      const v = complete(s, next, (a, k) => stubValue(attrType(a), type, k, seed, next));
      if (s.attrs.tags_all) v.set('tags_all', new Map([...defaultTags, ...(v.get('tags') || [])]));
      return msg(field(1, dynOut(v)), field(4, true));
    },
    ReadDataSource: (m) => {
      const type = str(m, 1), s = schema.data[type], cfg = dyn(m, 2);
      const seed = crypto.createHash('sha1').update(m[2][0]).digest('hex').slice(0, 8);
      const at = cfg.get('region') || region;
      const v = complete(s, cfg, (a, k) => stubValue(attrType(a), type, k, seed));
      if (type === 'aws_default_tags') v.set('tags', new Map(defaultTags));
      if (type === 'aws_availability_zones') { v.set('names', ZONES.map((z) => at + z)); v.set('zone_ids', ZONES.map((z, i) => `use1-az${i + 1}`)); }
      if (type === 'aws_iam_policy_document') { const j = policyDocument(v); v.set('json', j); v.set('minified_json', JSON.stringify(JSON.parse(j))); }
      return msg(field(1, dynOut(v)));
    },
  };
  const server = http2.createServer();
  server.on('stream', (stream, headers) => {
    const name = headers[':path'].split('/').pop(), chunks = [];
    const answer = (code, body, text) => {
      if (stream.destroyed) return;
      stream.on('error', () => {});
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
      stream.on('wantTrailers', () => { try { stream.sendTrailers({ 'grpc-status': String(code), ...(text ? { 'grpc-message': encodeURIComponent(text) } : {}) }); } catch {} });
      if (body) { const h = Buffer.alloc(5); h.writeUInt32BE(body.length, 1); stream.end(Buffer.concat([h, body])); } else stream.end();
    };
    stream.on('error', () => {});
    if (name === 'StartStream' || name === 'StreamStdio') return answer(12, null, 'not served');
    stream.on('data', (c) => chunks.push(c));
    stream.on('end', () => {
      if (name === 'Shutdown') { answer(0, Buffer.alloc(0)); setTimeout(() => process.exit(0), 20); return; }
      if (!calls[name]) return answer(12, null, name + ' is not served by the stand-in provider');
      try { answer(0, calls[name](parseMsg(Buffer.concat(chunks).subarray(5)))); } catch (e) { answer(13, null, `stand-in provider, ${name}: ${e.stack}`); }
    });
  });
  const sock = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'tfstub-')), 's');
  process.on('exit', () => fs.rmSync(path.dirname(sock), { recursive: true, force: true }));
  process.on('SIGTERM', () => process.exit(0));
  server.listen(sock, () => process.stdout.write(`1|6|unix|${sock}|grpc|\n`));
}

module.exports = { serve };
