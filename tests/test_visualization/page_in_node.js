// Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
// Runs the script of a page of a scene without a browser, does what a user does, and prints what the
// page then shows: node page_in_node.js PAGE
'use strict';
const fs = require('fs');
const vm = require('vm');

const page = fs.readFileSync(process.argv[2], 'utf8');
const script = page.match(/<script>\n([\s\S]*?)<\/script>/)[1];
const text = page.match(/<script type="application\/json" id="data">([\s\S]*?)<\/script>/)[1];
const drawn = { images: 0, strokes: 0, transform: null };
const counts = [];

class Stub {
  constructor(name) {
    Object.assign(this, { name, style: {}, dataset: {}, children: [], listeners: {}, hidden: true });
    Object.assign(this, { clientWidth: 400, clientHeight: 300, textContent: '', width: 0, height: 0 });
    this.classList = { add() {}, remove() {} };
  }
  set className(value) { if (value === 'count') counts.push(this); }
  append(...more) { this.children.push(...more); }
  addEventListener(kind, act) { this.listeners[kind] = act; }
  setPointerCapture() {}
  getBoundingClientRect() { return { left: 0, top: 0 }; }
  fire(kind, event = {}) { this.listeners[kind]({ preventDefault() {}, target: this, ...event }); }
  getContext() {
    return {
      setTransform(...values) { drawn.transform = values; },
      clearRect() {}, putImageData(pixels) { drawn.pixels = [...pixels.data]; },
      drawImage() { drawn.images += 1; },
      stroke(path) { drawn.strokes += path.moves > 0 ? 1 : 0; },
      getImageData: (x, y, width, height) => ({ width, height, data: JSON.parse(process.env.MAP) }),
    };
  }
}
const elements = { data: Object.assign(new Stub('data'), { textContent: text }) };
const frames = [];
const world = {
  document: {
    getElementById: (id) => (elements[id] ||= new Stub(id)),
    createElement: (kind) => new Stub(kind),
    querySelectorAll: () => counts,
  },
  window: { devicePixelRatio: 1, addEventListener() {}, requestAnimationFrame: (act) => frames.push(act) },
  Path2D: class {
    moves = 0;
    moveTo() { this.moves += 1; }
    lineTo() {}
    closePath() {}
  },
  ImageData: class {
    constructor(width, height) { this.data = new Uint8ClampedArray(4 * width * height); }
  },
  Image: class {
    complete = true;
    set src(value) { Object.assign(this, { width: 2, height: 2 }); queueMicrotask(() => this.onload()); }
  },
};
vm.runInNewContext(script, { ...world, JSON, Math, Number, Map, Infinity });

setImmediate(() => {
  const flush = () => { while (frames.length) frames.shift()(); };
  const view = elements.view;
  const at = (x, y) => {
    view.fire('pointermove', { pointerId: 1, clientX: x, clientY: y });
    return [elements.tip.textContent, elements.where.textContent];
  };
  const shown = {};
  flush();
  shown.fit = drawn.transform;
  shown.counts = counts.map((one) => one.textContent);
  shown.hidden = Object.fromEntries(['images', 'scores', 'opacities', 'legends'].map((id) => [id, (elements[id] || { hidden: true }).hidden]));
  shown.hover = JSON.parse(process.env.POINTS).map(([x, y]) => at(x, y));
  shown.pixels = drawn.pixels;
  view.fire('wheel', { clientX: 100, clientY: 60, deltaY: -500, deltaMode: 0 });
  flush();
  shown.zoomed = drawn.transform;
  view.fire('pointerdown', { pointerId: 1, clientX: 0, clientY: 0 });
  view.fire('pointermove', { pointerId: 1, clientX: 7, clientY: -5 });
  view.fire('pointerup', { pointerId: 1 });
  view.fire('keydown', { key: 'ArrowLeft' });
  flush();
  shown.moved = drawn.transform;
  elements.fit.fire('click');
  flush();
  shown.back = drawn.transform;
  if (elements.score) {
    elements.score.value = 0.6;
    elements.score.fire('input');
    shown.fewer = counts.map((one) => one.textContent);
  }
  const box = elements.legend.children[0].children[0];
  box.checked = false;
  box.fire('change');
  drawn.strokes = 0;
  flush();
  shown.strokes = drawn.strokes;
  shown.without = JSON.parse(process.env.POINTS).map(([x, y]) => at(x, y)[0]);
  shown.fewer_pixels = drawn.pixels;
  process.stdout.write(JSON.stringify(shown));
});
