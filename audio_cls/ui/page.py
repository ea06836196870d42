"""The start page as HTML: no script but a few lines of our own, nothing from elsewhere, every text escaped."""

from __future__ import annotations

import base64
import hashlib
import html
import time
from collections.abc import Sequence

from audio_cls.core.formatting import count
from audio_cls.queue.status import duration
from audio_cls.ui.overview import ArmRow, CorpusRow, Links, Overview, RunRow, StudyRow, SuiteRow

__all__ = ["CONTENT_SECURITY_POLICY", "MLFLOW_PATH", "MLFLOW_START", "start_page"]

MLFLOW_PATH = "/mlflow"
MLFLOW_START = f"{MLFLOW_PATH}#/experiments?workflowType=machine_learning"
REFRESH_SECONDS = 10
_REFERENCE = "the reference"
# MLflow's own addresses are `/#/...`, and what follows # never reaches a server: they are led on from here.
_SCRIPT = f"""function go() {{ if (location.hash.startsWith("#/")) location.replace("{MLFLOW_PATH}" + location.hash); }}
addEventListener("hashchange", go); go();"""
_DIGEST = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = f"default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; script-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --dim: #777; --link: #06c; --good: #2a7d2a; --bad: #b3261e; --live: #b26a00; }
@media (prefers-color-scheme: dark) { :root { --dim: #aaa; --link: #7ab8ff; --good: #7cc97c; --bad: #ff8a80; --live: #ffb74d; } }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
header { display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; align-items: baseline; border-bottom: 1px solid var(--line); padding-bottom: .6rem; }
h1 { font-size: 1.35rem; margin: 0; } h2 { font-size: 1.1rem; margin: 1.6rem 0 .3rem; }
header nav { margin-left: auto; } a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
.dim { color: var(--dim); font-size: .87em; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; font-weight: 600; font-size: .82rem; color: var(--dim); }
th, td { padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--soft); vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } td.name { font-weight: 600; overflow-wrap: anywhere; } td.name .dim { font-weight: 400; }
.links a { white-space: nowrap; margin-right: .7rem; } progress { width: 7rem; height: .6rem; vertical-align: middle; }
.finished { color: var(--good); } .failed, .interrupted, .killed { color: var(--bad); } .running { color: var(--live); font-weight: 600; }
.note { background: var(--soft); padding: .5rem .8rem; border-radius: .3rem; margin: .8rem 0; overflow-wrap: anywhere; }
code { background: var(--soft); padding: .1rem .3rem; border-radius: .2rem; } details summary { cursor: pointer; }
details table { margin: .3rem 0; } details td, details th { border: 0; padding-top: .1rem; padding-bottom: .1rem; font-size: .92em; }
@media (max-width: 640px) {
  table.wide thead { display: none; } table.wide > tbody > tr { display: block; border-bottom: 1px solid var(--line); padding: .5rem 0; }
  table.wide > tbody > tr > td { display: block; border: 0; padding: .1rem 0; text-align: left; }
  table.wide > tbody > tr > td[data-label]:not(:empty)::before { content: attr(data-label) " "; color: var(--dim); font-size: .85em; }
  table.wide > tbody > tr > td:empty { display: none; }
}
"""


def start_page(overview: Overview) -> str:
    """Return the start page of a workspace."""
    title = overview.workspace.name or str(overview.workspace)
    refresh = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">' if overview.active else ""
    parts = [
        _studies(overview.studies),
        _suites(overview.suites),
        _runs(overview.runs),
        _corpora(overview.corpora),
    ]
    notes = [f"not readable: {problem}" for problem in overview.problems]
    if overview.read_only:
        notes.insert(0, "The workspace is read-only: this is how it stood when the server was started.")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}: audio_cls</title>{refresh}<link rel="icon" href="data:,"><style>{_STYLE}</style><script>{_SCRIPT}</script></head>
<body><header><h1>{_text(title)}</h1><span class="dim">{_text(overview.workspace)}</span>
<nav><a href="{MLFLOW_START}">All runs in MLflow</a></nav></header>
{"".join(f'<p class="note">{_text(note)}</p>' for note in notes)}
{"".join(parts)}
<p class="dim">{time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(overview.made))}{f", renewed every {REFRESH_SECONDS} s while something runs" if overview.active else ""}</p>
</body></html>
"""


def _studies(rows: Sequence[StudyRow]) -> str:
    hint = "Search for a good configuration: <code>audio-cls study run studies/FILE.py --trials 30 --workers 2</code>"
    cells = []
    for row in rows:
        left = f"about {duration(row.seconds_left)} left" if row.seconds_left else ""
        progress = _progress(row.finished, row.total) + _dim("; ".join(t for t in (row.counts, left) if t))
        cells.append(
            [_name(row.name, row.corpus), _state(row.state), progress, _figure(row.best, row.metric), _links(row.links)]
        )
    return _section("Studies", ["study", "state", "configurations", "at the best epoch", ""], cells, hint)


def _suites(rows: Sequence[SuiteRow]) -> str:
    hint = "Compare configurations fairly: <code>audio-cls ablate run experiments/FILE.py --workers 2</code>"
    cells = []
    for row in rows:
        best = next((a for a in row.arms if a.mean is not None), None)
        said = f"{_figure(best.mean, row.metric)} {_dim(best.name)}" if best else ""
        if row.arms:
            said += _arms(row.arms)
        cells.append(
            [
                _name(row.name, row.corpus),
                _state(row.state),
                _progress(row.finished, row.total),
                said,
                _links(row.links),
            ]
        )
    return _section("Suites", ["suite", "state", "runs", "best arm", ""], cells, hint)


def _arms(arms: Sequence[ArmRow]) -> str:
    verdicts = [a.verdict for a in arms if a.verdict and a.verdict != _REFERENCE]
    summary = f"{count(len(arms), 'arm')}, {count(len(verdicts), 'verdict')}" if verdicts else count(len(arms), "arm")
    rows = "".join(
        f'<tr><td>{_text(a.name)}</td><td class="n">{_number(a.mean)}{f" ± {_number(a.std)}" if a.std is not None else ""}</td>'
        f"<td>{_text(a.verdict)}</td></tr>"
        for a in arms
    )
    return f"<details><summary>{summary}</summary><table><tbody>{rows}</tbody></table></details>"


def _runs(rows: Sequence[RunRow]) -> str:
    hint = "Train once: <code>audio-cls train --set data.corpus=NAME</code>"
    cells = []
    for row in rows:
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.began)) if row.began else ""
        state = _state(row.state) + (_dim(row.reason) if row.reason else "")
        kind = _text(row.kind) + _dim(began)
        cells.append([_name(row.name, row.corpus), state, kind, _figure(row.best, row.metric), _links(row.links)])
    return _section("Runs", ["run", "state", "kind", "at the best epoch", ""], cells, hint)


def _corpora(rows: Sequence[CorpusRow]) -> str:
    hint = "Prepare your data: <code>audio-cls data prepare FOLDER_OR_CSV --name NAME</code>"
    cells = []
    for row in rows:
        task = "several labels a clip" if row.task == "multilabel" else "one label a clip"
        what = f"{row.clips:,} clips, {row.classes} classes, {task}"
        length = f"{duration(row.seconds)} at {row.sample_rate:,} Hz"
        cells.append(
            [
                _name(row.name, ""),
                _text(what),
                _text(length),
                f'<span class="dim">digest {_text(row.digest[:12])}</span>',
            ]
        )
    return _section("Corpora", ["corpus", "clips", "duration", ""], cells, hint)


def _section(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], hint: str) -> str:
    if not rows:
        return f'<h2>{title}</h2><p class="dim">None yet. {hint}</p>'
    head = "".join(f"<th>{h}</th>" for h in heads)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{"name" if i == 0 else "links" if not h else ""}"'
            + (f' data-label="{h}"' if h and i else "")
            + f">{cell}</td>"
            for i, (h, cell) in enumerate(zip(heads, row, strict=True))
        )
        + "</tr>"
        for row in rows
    )
    return f'<h2>{title}</h2><table class="wide"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _name(name: str, corpus: str) -> str:
    return _text(name) + (_dim(f"on {corpus}") if corpus else "")


def _state(state: str) -> str:
    return f'<span class="{_text(state)}">{_text(state)}</span>'


def _progress(done: int, total: int | None) -> str:
    if total is None:
        return str(done) if done else ""
    bar = f'<progress max="{max(total, 1)}" value="{min(done, total)}"></progress> ' if done < total else ""
    return f"{bar}{done} of {total}"


def _figure(value: float | None, metric: str) -> str:
    return "" if value is None else f"<b>{_number(value)}</b> {_dim(metric, block=False)}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _links(links: Links) -> str:
    return " ".join(f'<a href="{_text(_local(address))}">{_text(text)}</a>' for text, address in links)


def _local(address: str) -> str:
    """Return MLflow's addresses on this server, without the detour over this page."""
    return MLFLOW_PATH + address.removeprefix("/") if address.startswith("/#/") else address


def _dim(text: str, block: bool = True) -> str:
    tag = "div" if block else "span"
    return f'<{tag} class="dim">{_text(text)}</{tag}>' if text else ""


def _text(value: object) -> str:
    return html.escape(str(value))
