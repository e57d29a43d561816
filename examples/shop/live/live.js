// The server renders the page and every fragment of the stream. This script inserts the fragments, sends the forms and
// animates the edges of the map.
'use strict';

const byId = (id) => document.getElementById(id);
const maxOrders = 24, maxLines = 300;
let source, filter = '';

// piece makes an element from HTML that the server's templates have rendered.
function piece(html) {
  const t = document.createElement('template');
  t.innerHTML = html;
  return t.content.firstElementChild;
}

function showOrder({ id, html }) {
  const next = piece(html), old = byId(id);
  const before = old ? [...old.querySelectorAll('.steps > li')].map((s) => s.classList[0]) : [];
  next.querySelectorAll('.steps > li').forEach((step, i) => {
    if (step.classList[0] !== (before[i] || 'waiting')) step.classList.add('fresh');
  });
  if (old) {
    const focused = old.contains(document.activeElement);
    old.replaceWith(next);
    if (focused) next.querySelector('button')?.focus();
    return;
  }
  const list = byId('orders');
  list.prepend(next);
  while (list.children.length > maxOrders) list.lastElementChild.remove();
}

function showLines(lines) {
  const log = byId('log');
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 30;
  const part = document.createDocumentFragment();
  for (const l of lines) part.append(piece(l));
  log.append(part);
  while (log.children.length > maxLines) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function pulse(edges) {
  for (const [id, how] of Object.entries(edges)) {
    const e = byId(id);
    if (!e) continue;
    const name = how === 'bad' ? 'lit-bad' : 'lit';
    e.classList.add(name);
    setTimeout(() => e.classList.remove(name), 350);
  }
}

function show(frame) {
  if (frame.fresh) {
    byId('orders').replaceChildren();
    byId('log').replaceChildren();
  }
  for (const [id, html] of Object.entries(frame.html || {})) {
    const e = byId(id);
    if (e) e.innerHTML = html;
  }
  (frame.orders || []).forEach(showOrder);
  if (frame.log) showLines(frame.log);
  pulse(frame.pulse || {});
  for (const e of document.querySelectorAll('.edge')) {
    e.classList.toggle('open', frame.broken[e.id] === 'open');
    e.classList.toggle('half-open', frame.broken[e.id] === 'half-open');
  }
  for (const b of document.querySelectorAll('button[data-state]')) {
    b.setAttribute('aria-pressed', frame.state[b.dataset.state] === (b.dataset.value || b.value));
  }
}

function conn(text, live) {
  const c = byId('conn');
  c.textContent = text;
  c.classList.toggle('live', live);
}

function listen() {
  source?.close();
  source = new EventSource('/live/stream' + (filter ? '?correlation=' + encodeURIComponent(filter) : ''));
  const mine = source;
  source.onopen = () => conn('live', true);
  source.onmessage = (m) => show(JSON.parse(m.data));
  source.onerror = () => {
    conn('the shop does not answer, reconnecting', false);
    if (mine.readyState === EventSource.CLOSED) setTimeout(() => { if (mine === source) listen(); }, 2000);
  };
}

function follow(id) {
  filter = id;
  byId('correlation').value = id;
  listen();
}

async function send(form, button) {
  const body = new URLSearchParams(new FormData(form, button));
  try {
    const res = await fetch(form.action, { method: 'POST', body });
    if (!res.ok) {
      const problem = await res.json().catch(() => ({}));
      notify(problem.detail || 'That was refused: ' + res.status);
    }
  } catch {
    notify('The shop does not answer.');
  }
}

function notify(text) {
  const li = document.createElement('li');
  li.textContent = text;
  byId('notes').prepend(li);
}

document.addEventListener('submit', (e) => {
  e.preventDefault();
  if (e.target.id === 'filter') follow(byId('correlation').value.trim());
  else send(e.target, e.submitter);
});
document.addEventListener('reset', (e) => { if (e.target.id === 'filter') follow(''); });
document.addEventListener('click', (e) => {
  const b = e.target.closest('button.trace');
  if (!b) return;
  follow(b.value);
  byId('h-log').scrollIntoView({ block: 'nearest' });
});
// A hidden page closes its stream: browsers open at most six connections to one origin, and the stream is one of them.
document.addEventListener('visibilitychange', () => (document.hidden ? source.close() : listen()));
listen();
