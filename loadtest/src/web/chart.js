// One graph over time: lines, axes, and a reading at the pointer or by arrow keys.
// Never: knows where the numbers come from, or keeps more of them than it is given.

const SVG = 'http://www.w3.org/2000/svg';
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800];
const PAD = { left: 56, right: 12, top: 10, bottom: 22 };

function element(name, attributes = {}, text = '') {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

/** A round distance between grid lines, for at most four of them. */
function gap(highest, least) {
  const raw = Math.max(highest / 4, least);
  const scale = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((each) => raw <= each * scale * 1.000001) * scale;
  return Number.isInteger(step / least) ? step : Math.ceil(step / least) * least;
}

/** Seconds as 45 s, 2:05 or 1:02:05. */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (number) => String(number).padStart(2, '0');
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

export class Chart {
  /**
   * `lines`: place in a point, name, colour, `area` to fill below it, `gaps` where 0
   * means that nothing was measured; `least`: the least distance of grid lines.
   */
  constructor(figure, { title, lines, format, least }) {
    this.lines = lines;
    this.least = least;
    this.format = format;
    this.title = title;
    this.points = [];
    this.reading = null;
    const caption = document.createElement('figcaption');
    const heading = document.createElement('h2');
    heading.textContent = title;
    this.legend = document.createElement('p');
    this.legend.className = 'legend';
    this.when = document.createElement('span');
    this.when.className = 'when';
    this.legend.append(this.when);
    this.keys = lines.map(({ name, colour }) => {
      const key = document.createElement('span');
      key.className = `key ${colour}`;
      const label = document.createElement('span');
      label.textContent = `${name} `;
      const value = document.createElement('b');
      key.append(label, value);
      this.legend.append(key);
      return value;
    });
    caption.append(heading, this.legend);
    this.svg = element('svg', { role: 'img', tabindex: '0' });
    figure.append(caption, this.svg);
    this.svg.addEventListener('pointermove', (event) => this.point(event.offsetX));
    this.svg.addEventListener('pointerleave', () => this.read(null));
    this.svg.addEventListener('blur', () => this.read(null));
    this.svg.addEventListener('keydown', (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  update(points) {
    this.points = points;
    this.draw();
  }

  get last() {
    return this.points.length - 1;
  }

  /** Reads the point nearest to a place on the screen. */
  point(x) {
    if (this.last < 0) return;
    const time = ((x - PAD.left) / this.width) * this.span;
    const after = this.points.findIndex((point) => point[0] >= time);
    const right = after < 0 ? this.last : after;
    const left = Math.max(0, right - 1);
    this.read(time - this.points[left][0] < this.points[right][0] - time ? left : right);
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (this.last < 0) return;
    if (event.key === 'Escape') this.read(null);
    else if (event.key === 'Home') this.read(0);
    else if (event.key === 'End') this.read(this.last);
    else if (step) this.read(Math.min(this.last, Math.max(0, (this.reading ?? this.last) + step)));
    else return;
    event.preventDefault();
  }

  read(index) {
    if (index === this.reading) return;
    this.reading = index;
    this.draw();
  }

  draw() {
    const box = this.svg.getBoundingClientRect();
    if (box.width === 0) return;
    this.width = box.width - PAD.left - PAD.right;
    const height = box.height - PAD.top - PAD.bottom;
    if (this.reading > this.last) this.reading = null;
    this.span = Math.max(10, this.points[this.last]?.[0] ?? 0);
    let highest = 0;
    for (const point of this.points) for (const { at } of this.lines) highest = Math.max(highest, point[at]);
    const step = gap(highest, this.least);
    const top = Math.max(1, Math.ceil(highest / step)) * step;
    const x = (seconds) => PAD.left + (seconds / this.span) * this.width;
    const y = (value) => PAD.top + height - (value / top) * height;

    const nodes = this.axes(x, y, highest > 0 ? top : 0, step, box);
    const shown = thin(this.points, Math.max(50, this.width / 2), this.lines);
    for (const { at, colour, area, gaps } of this.lines) {
      if (shown.length === 0) break;
      const group = element('g', { class: colour });
      let path = '';
      let pen = 'M';
      for (const point of shown) {
        if (gaps && point[at] === 0) pen = 'M';
        else {
          path += `${pen}${x(point[0]).toFixed(1)} ${y(point[at]).toFixed(1)}`;
          pen = 'L';
        }
      }
      if (area && path) {
        const floor = y(0).toFixed(1);
        const end = `L${x(shown.at(-1)[0]).toFixed(1)} ${floor}L${x(shown[0][0]).toFixed(1)} ${floor}Z`;
        group.append(element('path', { class: 'area', d: path + end }));
      }
      group.append(element('path', { class: 'line', d: path }));
      nodes.push(group);
    }
    if (this.points.length === 0) {
      nodes.push(element('text', { class: 'empty', x: PAD.left + this.width / 2, y: PAD.top + height / 2, 'text-anchor': 'middle' }, 'Nothing measured yet'));
    }
    const read = this.points[this.reading ?? this.last];
    if (this.reading !== null) {
      nodes.push(element('line', { class: 'cross', x1: x(read[0]), x2: x(read[0]), y1: PAD.top, y2: PAD.top + height }));
      for (const { at, colour } of this.lines) {
        const dot = element('circle', { cx: x(read[0]), cy: y(read[at]), r: 4, fill: 'currentColor' });
        const group = element('g', { class: colour });
        group.append(dot);
        nodes.push(group);
      }
    }
    this.svg.replaceChildren(...nodes);
    this.tell(read);
  }

  axes(x, y, top, step, box) {
    const nodes = [];
    for (let value = 0; value <= top * 1.000001; value += step) {
      nodes.push(element('line', { class: 'grid', x1: PAD.left, x2: box.width - PAD.right, y1: y(value), y2: y(value) }));
      nodes.push(element('text', { x: PAD.left - 8, y: y(value) + 4, 'text-anchor': 'end' }, this.format(value)));
    }
    const room = Math.max(2, Math.floor(this.width / 80));
    const apart = STEPS.find((seconds) => this.span / seconds <= room) ?? STEPS.at(-1);
    for (let seconds = 0; seconds <= this.span; seconds += apart) {
      const anchor = x(seconds) > box.width - 40 ? 'end' : 'middle';
      const place = anchor === 'end' ? box.width - 2 : x(seconds);
      nodes.push(element('text', { x: place, y: box.height - 5, 'text-anchor': anchor }, clock(seconds)));
    }
    return nodes;
  }

  /** While a moment is read the legend has its values; a screen reader hears them. */
  tell(read) {
    const values = this.lines.map(({ at }) => (read ? this.format(read[at]) : '–'));
    const reads = this.reading !== null;
    values.forEach((value, i) => { this.keys[i].textContent = reads ? value : ''; });
    this.when.textContent = reads ? `at ${clock(read[0])}` : '';
    const when = read ? ` at ${clock(read[0])}` : '';
    const words = this.lines.map(({ name }, i) => `${name} ${values[i]}`).join(', ');
    this.svg.setAttribute('aria-label', `${this.title}${when}: ${words}. Arrow keys read other moments.`);
  }
}

/** At most so many points; of those that fall together, the highest of each line. */
function thin(points, most, lines) {
  const size = Math.ceil(points.length / most);
  if (size <= 1) return points;
  const kept = [];
  for (let i = 0; i < points.length; i += size) {
    const group = points.slice(i, i + size);
    const point = [...group[0]];
    for (const { at } of lines) point[at] = Math.max(...group.map((other) => other[at]));
    kept.push(point);
  }
  return kept;
}
