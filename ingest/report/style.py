"""How the page looks, by day, by night and on a telephone; and the lock on what it may load."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root{--ink:#1b1f24;--soft:#5d6772;--line:#d9dee4;--bar:#4a78a8;--mark:#b3402e;--paper:#fff}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#9aa5b1;--line:#3a424b;--bar:#6f9fd0;--mark:#e8836f;--paper:#16191d}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1100px;margin:2em auto;padding:0 1em}
h1{font-size:1.6em;margin-bottom:0}h2{font-size:1.2em;margin-top:2.4em;border-bottom:1px solid var(--line)}h3{font-size:1em;margin:1.4em 0 .3em}
table{border-collapse:collapse;margin:.6em 0;display:block;overflow-x:auto}th,td{padding:.15em .8em .15em 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:500}td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}td{overflow-wrap:break-word;min-width:2.5em}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1em 1.2em}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.note,.none{color:var(--soft);font-size:.9em}svg{max-width:100%;height:auto}svg.cell{width:min(22em,30vw);height:.8em;display:block;margin-top:.35em}
.headline{display:flex;flex-wrap:wrap;gap:.2em 1.6em;font-size:1.05em;margin:.8em 0}.headline b{font-size:1.25em}.compact{font-size:.84em}.compact td,.compact th{white-space:nowrap;padding-right:.6em}body{overflow-wrap:break-word}svg text{font-size:12px;fill:var(--ink)}svg text.said{fill:var(--soft)}
.bar{fill:var(--bar)}.axis{stroke:var(--line)}line.threshold{stroke:var(--mark);stroke-width:1.5}svg text.threshold{fill:var(--mark)}
.many{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(320px,100%),1fr));gap:1.2em}figure{margin:0}figcaption{font-size:.85em}
img{max-width:100%;display:block;margin:.3em 0}article{margin:1.2em 0;break-inside:avoid}figure{break-inside:avoid}
@media (max-width:600px){svg.cell{width:16vw}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.4em}}
"""
# A second lock behind the escaping: even a tag that got through could load and run nothing.
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
GUARD = f"default-src 'none'; img-src data:; style-src 'sha256-{_STYLE_HASH}'"
