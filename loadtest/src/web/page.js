// The page: asks for the state once a second and shows it; sends what was pressed.
// Never: keeps a number that the server does not know, or loads anything else.
import { Chart, clock } from '/chart.js';

const POLL_MS = 1000;
const RUN_TIME_MAX = 86400;
const BUSY = ['starting', 'running', 'stopping'];
const PHASES = {
  ready: 'Ready',
  starting: 'Connecting',
  running: 'Running',
  stopping: 'Waiting for the last answers',
  finished: 'Finished',
  failed: 'Failed',
  lost: 'No connection',
};
const CAUSES = {
  connect: ['connection refused', 'not sent'],
  io: ['connection broke', 'no answer'],
  timeout: ['timeout', 'no answer'],
  protocol: ['not HTTP', 'no answer'],
};

const id = (name) => document.getElementById(name);
const fields = { users: id('users'), spawn_rate: id('spawn-rate'), rate: id('rate'), run_time: id('run-time') };

let state = null;
let lostAt = null;
let history = { epoch: 0, points: [] };
let filledFor = null;
let sending = false;
const edited = new Set();

// --- numbers for people -----------------------------------------------------

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });

const count = (value) => whole.format(value);
const rate = (value) => (value > 0 && value < 100 ? tenth : whole).format(value);

function time(micros) {
  if (micros < 1000) return `${Math.round(micros)} µs`;
  const [value, unit] = micros < 1e6 ? [micros / 1e3, 'ms'] : [micros / 1e6, 's'];
  return `${value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2)} ${unit}`;
}

/** On an axis: 0, 2.5 ms, 100 ms. */
function tick(micros) {
  if (micros === 0) return '0';
  const [value, unit] = micros < 1e3 ? [micros, 'µs'] : micros < 1e6 ? [micros / 1e3, 'ms'] : [micros / 1e6, 's'];
  return `${Number(value.toPrecision(3))} ${unit}`;
}

function share(part, of) {
  if (!part) return 'none so far';
  const percent = (100 * part) / of;
  return `${percent < 0.01 ? 'below 0.01' : percent.toFixed(2)} % of ${count(of)}`;
}

const charts = [
  new Chart(id('chart-rate'), {
    title: 'Requests per second',
    least: 1,
    format: rate,
    lines: [{ at: 2, name: 'requests/s', colour: 'green', area: true }, { at: 3, name: 'failures/s', colour: 'red' }],
  }),
  new Chart(id('chart-latency'), {
    title: 'Response times',
    least: 1,
    format: tick,
    lines: [
      { at: 4, name: 'p50', colour: 'blue', gaps: true },
      { at: 5, name: 'p95', colour: 'amber', gaps: true },
      { at: 6, name: 'p99', colour: 'red', gaps: true },
    ],
  }),
  new Chart(id('chart-users'), {
    title: 'Users',
    least: 1,
    format: rate,
    lines: [{ at: 1, name: 'users', colour: 'blue', area: true }],
  }),
];

// --- asking and telling -----------------------------------------------------

async function poll() {
  try {
    const answer = await fetch(`/api/state?epoch=${history.epoch}&known=${history.points.length}`);
    if (!answer.ok) throw new Error((await answer.json()).detail);
    const next = await answer.json();
    const part = next.history;
    const kept = part.epoch === history.epoch ? history.points.slice(0, part.from) : [];
    history = { epoch: part.epoch, points: kept.concat(part.points) };
    state = next;
    lostAt = null;
  } catch (error) {
    lostAt ??= new Date();
    console.info('no state:', error.message);
  }
  show();
}

async function post(path, body) {
  sending = true;
  show();
  try {
    const answer = await fetch(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    if (!answer.ok) throw new Error((await answer.json()).detail);
    formError('');
    edited.clear();
    filledFor = null;
  } catch (error) {
    formError(error instanceof TypeError ? 'The load generator does not answer.' : error.message);
  }
  sending = false;
  await poll();
}

async function loop() {
  await poll();
  setTimeout(loop, POLL_MS);
}

// --- the form ---------------------------------------------------------------

function formError(text, field = null) {
  id('form-error').textContent = text;
  id('form-error').hidden = !text;
  for (const input of Object.values(fields)) input.setAttribute('aria-invalid', String(input === field));
  field?.focus();
}

/** A whole number; an empty field is `empty`. Undefined if it is wrong, which is said. */
function wholeNumber(field, name, empty) {
  const text = field.value.trim().replaceAll(/[ ,_]/g, '');
  if (text === '' && empty !== undefined) return empty;
  if (/^\d{1,9}$/.test(text) && Number(text) > 0) return Number(text);
  formError(`${name}: expected a whole number above zero${empty === undefined ? '' : ', or nothing'}.`, field);
  return undefined;
}

function seconds(field) {
  const text = field.value.trim().replaceAll(' ', '');
  if (text === '') return 0;
  const parts = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?$/.exec(text);
  const sum = parts ? 3600 * (parts[1] ?? 0) + 60 * (parts[2] ?? 0) + Number(parts[3] ?? 0) : 0;
  if (sum > 0 && sum <= RUN_TIME_MAX) return sum;
  formError('Run time: expected a time such as 30s, 10m or 1h30m up to 24h, or nothing.', field);
  return undefined;
}

function duration(total) {
  if (total === null) return '';
  const [hours, minutes, rest] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  const text = `${hours ? `${hours}h` : ''}${minutes ? `${minutes}m` : ''}`;
  return rest || !text ? `${text}${Number(rest.toFixed(3))}s` : text;
}

const follows = () => state.plan.staged && id('staged').checked;

/** Fills in what the server says, but never over what somebody is typing. */
function fill() {
  const { plan, wanted } = state;
  const busy = BUSY.includes(state.phase);
  const now = busy ? wanted : plan;
  const values = {
    users: String(now.users),
    spawn_rate: plan.spawn_rate === null ? '' : String(plan.spawn_rate),
    rate: now.rate === null ? '' : String(now.rate),
    run_time: duration(plan.run_time_seconds),
  };
  const key = JSON.stringify([values, busy]);
  if (key === filledFor) return;
  filledFor = key;
  for (const [name, value] of Object.entries(values)) if (!edited.has(name)) fields[name].value = value;
}

function showForm() {
  const busy = BUSY.includes(state.phase);
  const running = state.phase === 'running' && !lostAt;
  fill();
  id('control-title').textContent = busy ? 'Load' : 'New run';
  setText('users-label', busy ? who() : 'Users');
  id('staged-row').hidden = busy || !state.plan.staged;
  const off = (busy && !running) || (!busy && follows());
  fields.users.disabled = off;
  fields.spawn_rate.disabled = off;
  fields.rate.disabled = off || (busy && state.plan.model === 'closed');
  fields.run_time.disabled = off || busy;
  id('start').hidden = busy;
  id('apply').hidden = !busy;
  id('stop').hidden = !busy;
  id('start').disabled = Boolean(lostAt) || sending;
  id('apply').disabled = !running || sending;
  id('stop').disabled = state.phase === 'stopping' || Boolean(lostAt) || sending;
}

const who = () => (state.plan.model === 'open' ? 'Connections' : 'Users');

function startBody() {
  if (follows()) return {};
  const users = wholeNumber(fields.users, 'Users');
  const spawn = users && wholeNumber(fields.spawn_rate, 'Spawn rate', 0);
  const perSecond = spawn !== undefined && wholeNumber(fields.rate, 'Rate', 0);
  const runTime = perSecond !== undefined && perSecond !== false ? seconds(fields.run_time) : undefined;
  if (users === undefined || runTime === undefined) return undefined;
  return { users, spawn_rate: spawn, rate: perSecond, run_time_seconds: runTime };
}

function loadBody() {
  const users = wholeNumber(fields.users, 'Users');
  const spawn = users && wholeNumber(fields.spawn_rate, 'Spawn rate', 0);
  if (users === undefined || spawn === undefined) return undefined;
  const body = {};
  if (users !== state.wanted.users) Object.assign(body, { users, spawn_rate: spawn });
  if (state.plan.model === 'open') {
    const perSecond = wholeNumber(fields.rate, 'Rate');
    if (perSecond === undefined) return undefined;
    if (perSecond !== state.wanted.rate) body.rate = perSecond;
  }
  if (Object.keys(body).length > 0) return body;
  formError('Nothing to change: enter another number.', fields.users);
  return undefined;
}

id('control').addEventListener('submit', (event) => {
  event.preventDefault();
  if (sending || !state) return;
  const busy = BUSY.includes(state.phase);
  const body = busy ? loadBody() : startBody();
  if (body) post(busy ? '/api/load' : '/api/start', body);
});
id('stop').addEventListener('click', () => post('/api/stop', {}));
id('staged').addEventListener('change', showForm);
for (const [name, field] of Object.entries(fields)) {
  field.addEventListener('input', () => { edited.add(name); formError(''); });
}

// --- showing ----------------------------------------------------------------

function notices() {
  const list = [];
  if (lostAt) {
    const at = lostAt.toLocaleTimeString();
    list.push(['bad', `The load generator has not answered since ${at}: it has ended, or the network is gone. This page tries again every second; the numbers are the last known.`]);
  }
  if (!state) return list;
  const { phase, problem, result, snapshot } = state;
  if (phase === 'failed') list.push(['bad', `The run could not be done: ${problem}.`]);
  else if (problem) list.push(['bad', `The run was done, but not delivered: ${problem}.`]);
  if (phase === 'finished' && result) {
    const broken = result.thresholds.filter((each) => !each.held).length;
    if (broken > 0) list.push(['bad', `${broken} of ${result.thresholds.length} requirements broken.`]);
    else if (!result.passed) list.push(['bad', 'The run failed: nothing was answered with success, or connections broke.']);
    else if (result.thresholds.length > 0) list.push(['good', `All requirements held (${result.thresholds.length}).`]);
    else list.push(['good', result.stopped ? 'The run was stopped; the report is of what was done.' : 'The run is complete.']);
    if (result.bottleneck) list.push(['note', 'Read with care: the generator itself was the bottleneck.']);
  }
  if (snapshot?.unsent > 0) list.push(['note', `${count(snapshot.unsent)} requests are due, but no connection was free for them: the target does not keep up, or there are too few connections.`]);
  return list;
}

/** Changes only what differs, so that a screen reader is not told twice. */
function showNotices() {
  const list = notices();
  const key = JSON.stringify(list);
  if (id('notices').dataset.key === key) return;
  id('notices').dataset.key = key;
  id('notices').replaceChildren(...list.map(([kind, text]) => {
    const node = document.createElement('p');
    node.className = `notice ${kind}`;
    node.textContent = text;
    return node;
  }));
}

function setText(name, text) {
  if (id(name).textContent !== text) id(name).textContent = text;
}

function row(cells, bad = () => false) {
  const tr = document.createElement('tr');
  cells.forEach((cell, i) => {
    const node = document.createElement(i === 0 ? 'th' : 'td');
    if (i === 0) node.scope = 'row';
    if (bad(i)) node.className = 'bad';
    node.textContent = cell;
    tr.append(node);
  });
  return tr;
}

function taskRow(task) {
  const measured = (micros) => (task.max_us > 0 ? time(micros) : '–');
  const times = [task.p50_us, task.p95_us, task.p99_us, task.mean_us, task.min_us, task.max_us].map(measured);
  const rates = [rate(task.requests_per_second), rate(task.failures_per_second)];
  const cells = [task.name, count(task.requests), count(task.failures), ...times, ...rates];
  return row(cells, (i) => i === 2 && task.failures > 0);
}

function showTiles(now) {
  const { wanted } = state;
  const busy = BUSY.includes(state.phase);
  setText('name-users', who());
  setText('tile-users', now ? count(now.users) : '–');
  setText('note-users', busy ? `of ${count(wanted.users)} wanted` : '');
  setText('tile-rate', now ? rate(now.requests_per_second) : '–');
  setText('note-rate', busy && wanted.rate !== null ? `of ${count(wanted.rate)} wanted` : now ? `${count(now.sent)} sent` : '');
  setText('tile-failures', now ? rate(now.failures_per_second) : '–');
  setText('note-failures', now ? share(now.failed, now.succeeded + now.failed) : '');
  id('tile-failures').className = now?.failures_per_second > 0 ? 'bad' : '';
  for (const name of ['p50', 'p95', 'p99']) {
    const micros = now?.[`${name}_us`] ?? 0;
    setText(`tile-${name}`, micros > 0 ? time(micros) : '–');
  }
}

function showTables(now) {
  const tasks = now?.tasks.length ? now.tasks : state.plan.tasks.map((name) => ({ name, requests: 0, failures: 0, max_us: 0, requests_per_second: 0, failures_per_second: 0 }));
  id('tasks').tBodies[0].replaceChildren(...tasks.map(taskRow));
  id('tasks').tFoot.replaceChildren(...(now?.tasks.length ? [taskRow(now.total)] : []));

  const failures = [];
  for (const [status, many] of Object.entries(now?.statuses ?? {})) {
    if (status < '200' || status >= '300') failures.push([status, 'HTTP status', count(many)]);
  }
  for (const [code, many] of Object.entries(now?.codes ?? {})) failures.push([code, 'problem code', count(many)]);
  for (const [cause, [what, kind]] of Object.entries(CAUSES)) {
    if (now?.causes[cause] > 0) failures.push([what, kind, count(now.causes[cause])]);
  }
  id('failures').hidden = failures.length === 0;
  id('no-failures').hidden = failures.length > 0;
  id('failures').querySelector('tbody').replaceChildren(...failures.map((cells) => row(cells)));
  const notes = [];
  if (now?.retried > 0) notes.push(`${count(now.retried)} requests were sent again with the same key; each attempt counts here, but only the last one is the request's failure.`);
  if (now?.last_error) notes.push(`The last error: ${now.last_error}.`);
  setText('last-error', notes.join(' '));

  const checked = state.result?.thresholds ?? [];
  id('requirements').hidden = checked.length === 0;
  id('requirements').querySelector('tbody').replaceChildren(...checked.map((each) => row([each.require, each.measured, each.held ? 'held' : 'broken'], (i) => i === 2 && !each.held)));
}

function show() {
  showNotices();
  const phase = lostAt ? 'lost' : state?.phase ?? 'ready';
  id('phase').dataset.phase = phase;
  setText('phase', state || lostAt ? PHASES[phase] : 'Loading');
  if (!state) return;
  // Of a run that could not be done there is nothing to show.
  const now = state.phase === 'failed' ? null : state.snapshot;
  const { plan } = state;
  setText('host', plan.host);
  const of = plan.run_time_seconds === null ? '' : ` of ${clock(plan.run_time_seconds)}`;
  setText('clock', now ? `${clock(now.at_seconds)}${BUSY.includes(state.phase) ? of : ''}` : '');
  document.title = phase === 'running' && now ? `${rate(now.requests_per_second)}/s · loadtest` : `${PHASES[phase]} · loadtest`;
  showForm();
  showTiles(now);
  for (const chart of charts) chart.update(state.phase === 'failed' ? [] : history.points);
  showTables(now);
  const reportable = (BUSY.includes(state.phase) && now) || state.phase === 'finished';
  id('downloads').hidden = !reportable;
  id('downloads-note').hidden = Boolean(reportable && state.phase === 'finished');
  setText('downloads-note', reportable ? 'Of the run so far.' : 'There is none before the first run.');
  id('settings').tBodies[0].replaceChildren(...plan.settings.map((cells) => row(cells)));
}

loop();
