package resilience

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
)

// The page shows what the status holds, and asks for it twice a second. It holds no data itself, so it needs no token: it asks for one and
// keeps it in the memory of the tab. Nothing outside of it is loaded: its policy allows its own script and style, by their hashes, and
// requests to its own origin.

var (
	pagePolicy = []string{"default-src 'none'; script-src '" + hashForPolicy(pageScript) + "'; style-src '" + hashForPolicy(pageStyle) +
		"'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}
	openPage   = makePage("<body>")
	lockedPage = makePage(`<body data-locked="yes">`) // it asks for the token first
)

func makePage(body string) []byte {
	return []byte(pageHead + "<style>" + pageStyle + "</style></head>" + body + pageBody + "<script>" + pageScript + "</script></body></html>\n")
}

func hashForPolicy(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

func (a *adminHandler) servePage(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header["Content-Security-Policy"] = pagePolicy
	header["X-Frame-Options"] = []string{"DENY"}
	page := openPage
	if a.locked {
		page = lockedPage
	}
	writeAdmin(w, r, http.StatusOK, "text/html; charset=utf-8", page)
}

const pageHead = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Resilience</title>
<link rel="icon" href="data:,">
`

const pageStyle = `
:root { --back: #f6f7f9; --card: #ffffff; --text: #1b1f24; --soft: #4d5661; --line: #c9d0d8; --link: #0b57a4;
	--good: #14612f; --goodback: #dcf3e3; --bad: #8f1616; --badback: #fbe1e1; --warn: #6b4700; --warnback: #fcefd0; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --card: #1d2126; --text: #e8ebef; --soft: #aeb7c2; --line: #3a424c; --link: #8cc2ff;
	--good: #9be3b3; --goodback: #16341f; --bad: #ffb3b3; --badback: #441b1b; --warn: #f5d48a; --warnback: #3d2f0e; } }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; background: var(--back); color: var(--text); }
header, main { max-width: 70rem; margin: 0 auto; padding: 1rem; }
header { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; align-items: baseline; }
h1 { font-size: 1.4rem; margin: 0; }
h2 { font-size: 1.2rem; margin: 0; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
p { margin: .3rem 0; }
section, form { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; margin: 0 0 1rem; }
.title { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; }
.badge { padding: .1rem .6rem; border-radius: 1rem; font-weight: 600; border: 1px solid currentColor; }
.good { color: var(--good); background: var(--goodback); }
.bad { color: var(--bad); background: var(--badback); }
.warn { color: var(--warn); background: var(--warnback); }
.soft { color: var(--soft); }
.rates { display: flex; flex-wrap: wrap; gap: .5rem 1.2rem; margin: .5rem 0; padding: 0; list-style: none; }
.rates strong { font-variant-numeric: tabular-nums; font-size: 1.3rem; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.key { overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: .9rem; }
label { display: block; font-weight: 600; }
input, select, button { font: inherit; color: inherit; background: var(--back); border: 1px solid var(--soft); border-radius: .3rem; padding: .4rem .6rem; max-width: 100%; }
button { cursor: pointer; color: var(--link); font-weight: 600; }
button.danger { color: var(--bad); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
summary { cursor: pointer; font-weight: 600; color: var(--link); }
.fields { display: flex; flex-wrap: wrap; gap: .8rem; align-items: end; }
svg { display: block; width: 100%; height: 3rem; }
.rates li { border-left: .3rem solid; padding-left: .5rem; }
.rates .l0 { border-color: var(--good); } .rates .l1 { border-color: var(--warn); } .rates .l2 { border-color: var(--bad); }
.line { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; }
.l0 { stroke: var(--good); } .l1 { stroke: var(--warn); } .l2 { stroke: var(--bad); }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
[hidden] { display: none; }
`

const pageBody = `
<header><h1>Resilience</h1><span id="about" class="soft"></span><span id="fresh" class="soft">Connecting</span></header>
<main>
<p id="news" class="unseen" role="status" aria-live="polite"></p>
<form id="login" hidden><div class="fields"><div><label for="token">Token</label><input id="token" type="password" autocomplete="off" required></div><button>Show</button></div>
<p id="loginproblem" class="soft">The token stays in the memory of this tab.</p></form>
<div id="all"></div>
<form id="look" hidden><h2>Why is a client limited?</h2>
<div class="fields">
<div><label for="lookname">Middleware</label><select id="lookname"></select></div>
<div><label for="looklimit">Limit</label><select id="looklimit"></select></div>
<div><label for="lookkey">Client, as kind:value</label><input id="lookkey" required placeholder="ip:192.0.2.1" autocomplete="off" spellcheck="false"></div>
<button>Look up</button></div>
<div id="found" role="status" aria-live="polite"></div>
<div id="removal" class="fields" hidden><div><label for="why">Reason</label><input id="why" maxlength="200" autocomplete="off"></div>
<button type="button" class="danger" id="remove">Delete the bucket</button></div>
</form>
</main>
`

const pageScript = `
'use strict';
(function () {
	var token = '', base = location.pathname.replace(/\/$/, ''), shown = {}, names = '', last = null, looked = null, failing = false;
	function id(name) { return document.getElementById(name); }
	function make(kind, style, text) {
		var e = document.createElement(kind);
		if (style) { e.className = style; }
		if (text !== undefined) { e.textContent = text; }
		return e;
	}
	function set(e, text) { if (e.textContent !== text) { e.textContent = text; } }
	function call(method, path, headers) {
		headers = headers || {};
		if (token) { headers.Authorization = 'Bearer ' + token; }
		return fetch(base + path, { method: method, headers: headers, cache: 'no-store', credentials: 'omit' });
	}
	function duration(s) {
		s = Math.round(s);
		if (s < 60) { return s + ' s'; }
		if (s < 3600) { return Math.floor(s / 60) + ' min ' + s % 60 + ' s'; }
		return Math.floor(s / 3600) + ' h ' + Math.floor(s % 3600 / 60) + ' min';
	}
	function number(n) { return n >= 100 || n === Math.round(n) ? String(Math.round(n)) : n.toFixed(1); }
	var states = { 'closed': 'good', 'open': 'bad', 'half-open': 'warn', 'ramp': 'warn' };
	var lengths = [['1m', '1 minute'], ['10m', '10 minutes'], ['1h', '1 hour'], ['24h', '1 day'], ['168h', '1 week']];

	function field(label, input) {
		var e = make('label', '', label + ' ');
		e.append(input);
		return e;
	}
	// control returns the fields to open and close a circuit of a middleware by hand.
	function control(v, name) {
		var fields = make('div', 'fields'), length = make('select'), reason = make('input'), about = {}, buttons = {};
		v.control = make('details');
		v.control.append(make('summary', '', 'Open or close the circuit by hand'), fields);
		lengths.forEach(function (one) { var o = make('option', '', one[1]); o.value = one[0]; length.append(o); });
		length.value = '10m';
		reason.maxLength = 200;
		reason.autocomplete = 'off';
		v.scope = make('input');
		v.scope.maxLength = 256;
		v.scope.autocomplete = 'off';
		v.scope.spellcheck = false;
		v.scope.placeholder = 'that of ' + name;
		v.scopeField = field('Host or path', v.scope);
		fields.append(field('For', length), field('Reason', reason), v.scopeField);
		about.open = ['Open', 'Open the circuit of {name} for {for}? All gateways refuse its requests until then.'];
		about.close = ['Close', 'Close the circuit of {name} for {for}? All requests pass until then, whatever fails.'];
		about.auto = ['Automatic', 'Leave the circuit of {name} to itself again?'];
		// whose returns the name of the circuit that the fields are about.
		function whose() { return v.scope.value.trim() ? v.scope.value.trim() + ' of ' + name : name; }
		function label() {
			buttons.open.setAttribute('aria-label', 'Open the circuit of ' + whose());
			buttons.close.setAttribute('aria-label', 'Close the circuit of ' + whose());
			buttons.auto.setAttribute('aria-label', 'Automatic: leave the circuit of ' + whose() + ' to itself');
		}
		['open', 'close', 'auto'].forEach(function (what) {
			var button = make('button', what === 'auto' ? '' : 'danger', about[what][0]);
			button.type = 'button';
			buttons[what] = button;
			button.addEventListener('click', function () {
				var question = about[what][1].replace('{for}', length.selectedOptions[0].textContent).replace('{name}', function () { return whose(); });
				if (!confirm(question)) { return; }
				var scope = v.scope.value.trim(), path = '/circuits/' + encodeURIComponent(name).replace(/%2F/g, '/') + '/' + what + '?for=' + length.value + '&reason=' + encodeURIComponent(reason.value);
				if (scope) { path += '&scope=' + encodeURIComponent(scope); }
				call('POST', path, { 'X-Resilience': 'page' }).then(function (r) {
					return r.json().then(function (b) {
						set(v.done, !r.ok ? b.error : b.known === false ? 'Done. This gateway has seen no request of ' + b.scope + '.' : 'Done.');
						if (r.ok) { reason.value = ''; }
					});
				}).catch(function () { set(v.done, 'The gateway does not answer.'); });
			});
			fields.append(button);
		});
		v.auto = buttons.auto;
		label();
		v.scope.addEventListener('input', label);
		// about has the fields be about the circuit of a scope.
		v.about = function (scope) {
			v.scope.value = scope;
			label();
			set(v.done, '');
			v.control.open = true;
			v.control.scrollIntoView();
			length.focus();
		};
		v.done = make('p', 'soft');
		v.done.setAttribute('role', 'status');
		v.control.append(v.done);
		return v.control;
	}

	function add(name) {
		var v = { history: [[], [], []] };
		v.section = make('section');
		v.section.setAttribute('aria-label', 'Middleware ' + name);
		var title = make('div', 'title');
		title.append(make('h2', '', name));
		v.circuit = make('span', 'badge'); v.redis = make('span', 'badge');
		title.append(v.circuit, v.redis);
		var rates = make('ul', 'rates');
		v.rates = ['admitted', 'limited', 'circuit open'].map(function (label, i) {
			var item = make('li', 'l' + i), n = make('strong', '', '0');
			item.append(n, label + ' / s');
			rates.append(item);
			return n;
		});
		var svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
		svg.setAttribute('viewBox', '0 0 59 20');
		svg.setAttribute('preserveAspectRatio', 'none');
		svg.setAttribute('aria-hidden', 'true');
		v.lines = [0, 1, 2].map(function (i) {
			var line = document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
			line.setAttribute('class', 'line l' + i);
			svg.append(line);
			return line;
		});
		v.more = make('p', 'soft');
		v.settings = make('p', 'soft');
		v.fleet = make('p', 'soft');
		v.changesTitle = make('h3', '', 'Recent changes of the circuit');
		v.changes = make('ol');
		v.scopesTitle = make('h3', '', '');
		v.scopes = make('div', 'scroll');
		v.clientsTitle = make('h3', '', 'Clients refused most in the last minutes');
		v.clients = make('div', 'scroll');
		v.forced = make('p', 'badge warn');
		v.own = make('p', 'badge bad');
		v.section.append(title, v.forced, v.own, rates, svg, control(v, name), v.more, v.settings, v.fleet, v.scopesTitle, v.scopes, v.changesTitle, v.changes, v.clientsTitle, v.clients);
		id('all').append(v.section);
		return v;
	}

	// table fills a place with a row for each of some things: the texts of its cells, the first of which names it, and a button. It keeps the focus.
	function table(place, titles, all, cells, what, say, act) {
		var focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
		place.textContent = '';
		if (all.length === 0) { return; }
		var table = make('table'), head = make('thead'), row = make('tr'), body = make('tbody');
		titles.concat('').forEach(function (text) {
			var cell = make(text ? 'th' : 'td', '', text);
			if (text) { cell.scope = 'col'; }
			row.append(cell);
		});
		head.append(row);
		all.forEach(function (one) {
			var line = make('tr'), last = make('td'), button = make('button', '', what), texts = cells(one);
			button.type = 'button';
			button.dataset.key = texts[0];
			button.setAttribute('aria-label', say + ' ' + texts[0]);
			button.addEventListener('click', function () { act(one); });
			last.append(button);
			texts.forEach(function (text, i) { line.append(make('td', i === 0 ? 'key' : '', text)); });
			line.append(last);
			body.append(line);
			if (focused === texts[0]) { setTimeout(function () { button.focus(); }, 0); }
		});
		table.append(head, body);
		place.append(table);
	}

	function clients(v, m) {
		var key = JSON.stringify(m.mostRefused);
		v.clientsTitle.hidden = m.mostRefused.length === 0;
		if (v.clientsKey === key) { return; }
		v.clientsKey = key;
		table(v.clients, ['Client', 'Limit', 'Refused'], m.mostRefused, function (one) {
			return [one.key, one.limit, (one.countTooHighBy ? 'up to ' : '') + one.refused];
		}, 'Look up', 'Look up', function (one) {
			id('lookname').value = m.name;
			limitsOf(m.name);
			id('looklimit').value = one.limit;
			id('lookkey').value = one.key;
			lookUp();
			id('look').scrollIntoView();
		});
	}

	// scopes shows the circuits of hosts or paths, where a middleware has such.
	function scopes(v, m) {
		var all = m.circuit && m.circuit.scopes;
		v.scopeField.hidden = v.scopesTitle.hidden = v.scopes.hidden = !all;
		if (!all) { return; }
		set(v.scopesTitle, 'Circuits of hosts or paths: ' + all.known + ' known, ' + all.states.open + ' open' +
			(all.known > all.circuits.length ? '; ' + all.circuits.length + ' of them' : ''));
		var rows = all.circuits.map(function (c) {
			var state = c.state;
			if (c.forced) { state += ' by hand, for another ' + duration(c.forced.secondsLeft) + (c.forced.reason ? ': ' + c.forced.reason : ''); }
			else if (c.state === 'open' && c.secondsUntilProbe > 0) { state += ', probe in ' + duration(c.secondsUntilProbe); }
			return [c.scope, state, String(c.failures)];
		});
		var key = JSON.stringify(rows);
		if (v.scopesKey === key) { return; }
		v.scopesKey = key;
		table(v.scopes, ['Host or path', 'Circuit', 'Failures'], rows, function (row) { return row; }, 'Open or close', 'Open or close the circuit of', function (row) { v.about(row[0]); });
	}

	function update(v, m, seconds) {
		var sums = [m.requests.admitted + m.requests.would_limit + m.requests.would_open, m.requests.limited, m.requests.circuit_open], most = 1;
		if (v.sums && seconds > 0) {
			sums.forEach(function (n, i) {
				var rate = Math.max(0, n - v.sums[i]) / seconds;
				set(v.rates[i], number(rate));
				v.history[i].push(rate);
				if (v.history[i].length > 60) { v.history[i].shift(); }
			});
		}
		v.sums = sums;
		v.history.forEach(function (h) { h.forEach(function (n) { most = Math.max(most, n); }); });
		v.history.forEach(function (h, i) {
			v.lines[i].setAttribute('points', h.map(function (n, x) { return x + ',' + (19 - 18 * n / most).toFixed(2); }).join(' '));
		});
		var forced = m.circuit && m.circuit.forced, own = m.circuit && m.circuit.own;
		v.circuit.hidden = v.control.hidden = !m.circuit;
		v.forced.hidden = !forced;
		v.auto.hidden = !forced && !(m.circuit && m.circuit.scopes);
		if (forced) {
			set(v.forced, (forced.state === 'open' ? 'Opened' : 'Closed') + ' by hand until ' + new Date(forced.until).toLocaleString() + ', for another ' +
				duration(forced.secondsLeft) + (forced.reason ? ': ' + forced.reason : ''));
		}
		v.own.hidden = !own || own.state === 'closed';
		if (own) { set(v.own, 'The own circuit of this gateway is ' + own.state); }
		v.changesTitle.hidden = v.changes.hidden = !m.circuit || m.circuit.recent.length === 0;
		if (m.circuit) {
			var text = 'circuit ' + m.circuit.state, wait = (m.circuit.redis || m.circuit.gateway).secondsUntilProbe;
			if (m.circuit.forced) { text += ' by hand'; }
			else if (m.circuit.state === 'open' && wait > 0) { text += ', probe in ' + duration(wait); }
			set(v.circuit, text);
			v.circuit.className = 'badge ' + states[m.circuit.state];
			if (v.state && v.state !== m.circuit.state) { set(id('news'), 'The circuit of ' + m.name + ' is ' + m.circuit.state); }
			v.state = m.circuit.state;
			var key = m.circuit.recent.map(function (c) { return c.time; }).join();
			if (v.changesKey !== key) {
				v.changesKey = key;
				v.changes.textContent = '';
				m.circuit.recent.slice(0, 8).forEach(function (c) {
					v.changes.append(make('li', '', new Date(c.time).toLocaleTimeString() + ': ' + c.from + ' to ' + c.to + (c.scope ? ' (' + c.scope + ')' : '')));
				});
			}
		}
		v.redis.hidden = !m.redis;
		if (m.redis) {
			set(v.redis, m.redis.up ? 'Redis ' + (1000 * (m.redis.latencySeconds || 0)).toFixed(1) + ' ms' : 'Redis unavailable');
			v.redis.className = 'badge ' + (m.redis.up ? 'good' : 'bad');
			if (v.up !== undefined && v.up !== m.redis.up) { set(id('news'), m.redis.up ? 'Redis is back' : 'Redis is unavailable'); }
			v.up = m.redis.up;
		}
		set(v.more, 'In total: ' + m.requests.admitted + ' admitted, ' + m.requests.limited + ' limited, ' + m.requests.circuit_open + ' refused by the circuit, ' +
			m.requests.denied + ' denied, ' + m.waiting + ' waiting, ' + m.fallbackDecisions + ' decided without Redis. ' + m.grants + ' grants and ' + m.leases + ' leases in memory, ' + m.routers + (m.routers === 1 ? ' router.' : ' routers.'));
		var servers = m.redis && m.redis.topology !== 'single' && m.redis.server ? ' Redis ' + m.redis.topology + ', the server in use is ' + m.redis.server + '.' : '';
		set(v.settings, m.settings.join('; ') + (m.settingsDiffer ? ' (routers differ)' : '') + '.' + servers);
		var others = m.fleet.gateways;
		v.fleet.hidden = others.length < 2;
		set(v.fleet, others.length + ' gateways: ' + others.map(function (g) {
			var notes = [];
			if (g.self) { notes.push('this one'); }
			if (Math.abs(g.clockOffsetSeconds) >= 1) { notes.push('clock off by ' + number(g.clockOffsetSeconds) + ' s'); }
			if (g.settingsDiffer) { notes.push('other settings'); }
			return (g.host || g.id) + (notes.length ? ' (' + notes.join(', ') + ')' : '');
		}).join(', '));
		scopes(v, m);
		clients(v, m);
	}

	function limitsOf(name) {
		var select = id('looklimit'), m = (last || { middlewares: [] }).middlewares.filter(function (m) { return m.name === name; })[0];
		var before = select.value;
		select.textContent = '';
		(m ? m.limits : []).forEach(function (limit) { select.append(make('option', '', limit)); });
		if (m && m.limits.indexOf(before) >= 0) { select.value = before; }
	}

	function draw(status) {
		var seconds = last ? (Date.parse(status.time) - Date.parse(last.time)) / 1000 : 0, seen = {};
		last = status;
		status.middlewares.forEach(function (m) {
			seen[m.name] = true;
			shown[m.name] = shown[m.name] || add(m.name);
			update(shown[m.name], m, seconds);
		});
		Object.keys(shown).forEach(function (name) {
			if (!seen[name]) { shown[name].section.remove(); delete shown[name]; }
		});
		var limited = status.middlewares.filter(function (m) { return m.limits.length > 0; }).map(function (m) { return m.name; });
		if (names !== limited.join()) {
			names = limited.join();
			id('lookname').textContent = '';
			limited.forEach(function (name) { id('lookname').append(make('option', '', name)); });
			limitsOf(id('lookname').value);
		}
		id('look').hidden = limited.length === 0;
		set(id('about'), 'version ' + status.version + ', up for ' + duration(status.uptimeSeconds));
		set(id('fresh'), status.middlewares.length === 0 ? 'Live. No middleware limits or breaks yet.' : 'Live');
		id('fresh').className = 'soft';
	}

	function trouble(text) {
		set(id('fresh'), text);
		id('fresh').className = 'badge bad';
		if (!failing) { set(id('news'), text); }
		failing = true;
	}

	function poll() {
		call('GET', '/status').then(function (r) {
			if (r.status === 401) {
				id('login').hidden = false;
				set(id('fresh'), 'Locked');
				if (token) { set(id('loginproblem'), 'This token is wrong.'); }
				token = '';
				return null;
			}
			if (!r.ok) { throw new Error('The gateway answers ' + r.status); }
			return r.json();
		}).then(function (status) {
			if (!status) { return; }
			id('login').hidden = true;
			failing = false;
			draw(status);
			setTimeout(poll, 500);
		}).catch(function (e) {
			trouble('Not live: ' + (e.message || 'no answer'));
			setTimeout(poll, 2000);
		});
	}

	function bucketPath() {
		return '/buckets/' + encodeURIComponent(looked.key).replace(/%2F/g, '/') + '?middleware=' + encodeURIComponent(looked.name) + '&limit=' + encodeURIComponent(looked.limit);
	}
	function say(text) { id('found').textContent = ''; id('found').append(make('p', '', text)); }
	// tell says what was found. A client may be penalised whatever its bucket holds.
	function tell(b) {
		var text = b.penaltySeconds > 0 ? 'Penalised: all requests of the client are refused for another ' + duration(Math.max(1, b.penaltySeconds)) + '.' :
			b.limited ? 'Limited: the bucket is empty, and has a token again in ' + duration(Math.max(1, b.nextTokenSeconds)) + '.' : 'Not limited.';
		if (b.capacity !== undefined) {
			text += ' ' + b.tokens + ' of ' + b.capacity + ' tokens are left; gateways hold ' + b.leased + ', this one ' + b.held + '.' +
				(b.fullSeconds > 0 ? ' It is full in ' + duration(b.fullSeconds) + '.' : '');
		}
		say(text);
		set(id('remove'), b.penaltySeconds > 0 ? 'End the penalty and delete the bucket' : 'Delete the bucket');
	}
	function lookUp() {
		looked = { key: id('lookkey').value.trim(), name: id('lookname').value, limit: id('looklimit').value };
		id('removal').hidden = true;
		call('GET', bucketPath()).then(function (r) {
			return r.json().then(function (b) {
				if (!r.ok) { say(b.error); return; }
				id('removal').hidden = false;
				tell(b);
			});
		}).catch(function () { say('The gateway does not answer.'); });
	}
	function remove() {
		if (!confirm(id('remove').textContent + ' of ' + looked.key + '? The client may send as many requests as the bucket holds.')) { return; }
		call('DELETE', bucketPath() + '&reason=' + encodeURIComponent(id('why').value), { 'X-Resilience': 'page' }).then(function (r) {
			return r.json().then(function (b) {
				if (!r.ok) { say(b.error); return; }
				lookUp();
				set(id('news'), b.penaltyEnded ? 'The penalty has ended' : b.deleted ? 'The bucket is deleted' : 'There was no bucket to delete: it is full');
			});
		}).catch(function () { say('The gateway does not answer.'); });
	}
	id('login').addEventListener('submit', function (e) { e.preventDefault(); token = id('token').value.trim(); id('token').value = ''; poll(); });
	id('look').addEventListener('submit', function (e) { e.preventDefault(); lookUp(); });
	id('lookname').addEventListener('change', function () { limitsOf(id('lookname').value); });
	id('remove').addEventListener('click', remove);
	if (document.body.dataset.locked) {
		id('login').hidden = false;
		set(id('fresh'), 'Locked');
	} else {
		poll();
	}
})();
`
