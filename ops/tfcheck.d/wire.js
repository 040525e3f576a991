'use strict';
// What terraform and a provider say to each other, as bytes: protobuf fields and msgpack values.
const varint = (n) => { const b = []; let v = BigInt(n); do { let x = Number(v & 127n); v >>= 7n; if (v) x |= 128; b.push(x); } while (v); return Buffer.from(b); };
const field = (no, val) => {
  if (val === undefined || val === null || val === false || val === 0) return Buffer.alloc(0);
  if (val === true || typeof val === 'number') return Buffer.concat([varint(no << 3), varint(Number(val))]);
  const b = Buffer.isBuffer(val) ? val : Buffer.from(val);
  return Buffer.concat([varint((no << 3) | 2), varint(b.length), b]);
};
const msg = (...fields) => Buffer.concat(fields);
function parseMsg(buf) { // length-delimited and varint fields: {no: [values]}
  const out = {}; let i = 0;
  const vi = () => { let r = 0n, s = 0n; for (;;) { const b = buf[i++]; r |= BigInt(b & 127) << s; if (!(b & 128)) return r; s += 7n; } };
  while (i < buf.length) {
    const key = Number(vi()), no = key >> 3, wt = key & 7; let v;
    if (wt === 0) v = vi(); else if (wt === 2) { const n = Number(vi()); v = buf.subarray(i, i + n); i += n; } else if (wt === 1) { v = buf.subarray(i, i + 8); i += 8; } else { v = buf.subarray(i, i + 4); i += 4; }
    (out[no] = out[no] || []).push(v);
  }
  return out;
}
class Ext { constructor(type, data) { this.type = type; this.data = data; } } // an unknown value
const UNKNOWN = new Ext(0, Buffer.from([0]));
function unpack(buf) {
  let i = 0;
  const take = (n) => { const b = buf.subarray(i, i + n); i += n; return b; };
  const seq = (n) => { const a = []; for (let k = 0; k < n; k++) a.push(val()); return a; };
  const obj = (n) => { const o = new Map(); for (let k = 0; k < n; k++) { const key = val(); o.set(key, val()); } return o; };
  const ext = (n) => { const t = buf.readInt8(i); i++; return new Ext(t, Buffer.from(take(n))); };
  function val() {
    const c = buf[i++];
    if (c < 0x80) return c; if (c < 0x90) return obj(c & 15); if (c < 0xa0) return seq(c & 15); if (c < 0xc0) return take(c & 31).toString(); if (c >= 0xe0) return c - 256;
    switch (c) {
      case 0xc0: return null; case 0xc2: return false; case 0xc3: return true;
      case 0xc4: return Buffer.from(take(take(1)[0])); case 0xc5: return Buffer.from(take(take(2).readUInt16BE()));
      case 0xc7: return ext(take(1)[0]); case 0xc8: return ext(take(2).readUInt16BE()); case 0xc9: return ext(take(4).readUInt32BE());
      case 0xca: return take(4).readFloatBE(); case 0xcb: return take(8).readDoubleBE();
      case 0xcc: return take(1)[0]; case 0xcd: return take(2).readUInt16BE(); case 0xce: return take(4).readUInt32BE(); case 0xcf: return take(8).readBigUInt64BE();
      case 0xd0: return take(1).readInt8(); case 0xd1: return take(2).readInt16BE(); case 0xd2: return take(4).readInt32BE(); case 0xd3: return take(8).readBigInt64BE();
      case 0xd4: return ext(1); case 0xd5: return ext(2); case 0xd6: return ext(4); case 0xd7: return ext(8); case 0xd8: return ext(16);
      case 0xd9: return take(take(1)[0]).toString(); case 0xda: return take(take(2).readUInt16BE()).toString(); case 0xdb: return take(take(4).readUInt32BE()).toString();
      case 0xdc: return seq(take(2).readUInt16BE()); case 0xdd: return seq(take(4).readUInt32BE());
      case 0xde: return obj(take(2).readUInt16BE()); case 0xdf: return obj(take(4).readUInt32BE());
    }
    throw new Error('msgpack byte ' + c);
  }
  return val();
}
function pack(v) {
  const head = (b, n, size) => { const h = Buffer.alloc(1 + size); h[0] = b; h.writeUIntBE(n, 1, size); return h; };
  if (v === null || v === undefined) return Buffer.from([0xc0]);
  if (v === true) return Buffer.from([0xc3]); if (v === false) return Buffer.from([0xc2]);
  if (typeof v === 'bigint') { const b = Buffer.alloc(9); if (v < 0n) { b[0] = 0xd3; b.writeBigInt64BE(v, 1); } else { b[0] = 0xcf; b.writeBigUInt64BE(v, 1); } return b; }
  if (typeof v === 'number') {
    if (Number.isInteger(v) && v >= 0 && v < 128) return Buffer.from([v]);
    if (Number.isSafeInteger(v)) return pack(BigInt(v));
    const b = Buffer.alloc(9); b[0] = 0xcb; b.writeDoubleBE(v, 1); return b;
  }
  if (typeof v === 'string') { const b = Buffer.from(v); return Buffer.concat([head(0xdb, b.length, 4), b]); }
  if (Buffer.isBuffer(v)) return Buffer.concat([head(0xc5, v.length, 2), v]);
  if (v instanceof Ext) return Buffer.concat([v.type === 0 && v.data.length === 1 ? Buffer.from([0xd4, 0]) : Buffer.concat([head(0xc8, v.data.length, 2), Buffer.from([v.type])]), v.data]);
  if (Array.isArray(v)) return Buffer.concat([head(0xdd, v.length, 4), ...v.map(pack)]);
  return Buffer.concat([head(0xdf, v.size, 4), ...[...v].flatMap(([k, x]) => [pack(k), pack(x)])]);
}

module.exports = { Ext, UNKNOWN, field, msg, parseMsg, unpack, pack };
