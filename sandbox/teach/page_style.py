"""The style sheet of :mod:`~sandbox.teach.page`, and the colours.

Each colour of text has a contrast of at least 4.5 with both backgrounds. The drivers' colours stay apart for people who
see no red, no green or no blue; cgroupfs is orange and systemd is blue, everywhere.
"""

LIGHT = {"paper": "#ffffff", "raised": "#f5f6f8", "ink": "#14181d", "soft": "#545c67", "rule": "#dde1e7",
         "cgroupfs": "#b54a00", "systemd": "#0b5cad", "delegated": "#00766c", "other": "#5c6570",
         "max": "#b00f2e", "high": "#855700", "same": "#1b6b3d"}
DARK = {"paper": "#0f1317", "raised": "#171c22", "ink": "#e8ecf0", "soft": "#a3adb8", "rule": "#2b323a",
        "cgroupfs": "#ff9f57", "systemd": "#6db5ff", "delegated": "#4fd1b5", "other": "#a3adb8",
        "max": "#ff7d8b", "high": "#e9b949", "same": "#6fcf97"}

_PAGE = """
*{box-sizing:border-box}
html{font:100%/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;background:var(--paper);
color:var(--ink);-webkit-text-size-adjust:100%;scroll-padding-top:1.5rem}
body{margin:0;overflow-wrap:break-word}
body::before{content:"";display:block;height:4px;
background:linear-gradient(90deg,var(--cgroupfs) 50%,var(--systemd) 50%)}
header,main,footer{max-width:70rem;margin:0 auto;padding:0 clamp(1rem,4vw,2.5rem)}
header{padding-top:clamp(2.5rem,7vw,5rem)}
h1{font-size:clamp(2rem,1.4rem + 2.8vw,3.5rem);line-height:1.08;letter-spacing:-.025em;font-weight:680;margin:0;
max-width:20ch;text-wrap:balance}
h2{font-size:clamp(1.375rem,1.2rem + .8vw,1.75rem);line-height:1.25;letter-spacing:-.015em;font-weight:650;
margin:0 0 1rem}
p{margin:0 0 1rem;max-width:42rem;text-wrap:pretty}
.lead{font-size:clamp(1.0625rem,1rem + .5vw,1.3125rem);line-height:1.5;color:var(--soft);margin:1.25rem 0 0}
nav ol{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1.5rem;margin:1.75rem 0 0;padding:0;font-size:.9375rem}
nav a{display:inline-block;padding:.25rem 0}
a{color:var(--systemd);text-underline-offset:.2em;text-decoration-thickness:1px}
a:hover{text-decoration-thickness:2px}
:focus-visible{outline:2px solid var(--systemd);outline-offset:3px;border-radius:3px}
h2:focus,main:focus{outline:0}
.skip{position:absolute;left:1rem;top:-5rem;background:var(--ink);color:var(--paper);padding:.6rem 1rem;
border-radius:6px}
.skip:focus{top:1rem}
main{padding-top:2.25rem}
section{padding-top:clamp(2.5rem,5vw,4rem)}
footer{margin-top:clamp(3rem,6vw,5rem);padding-bottom:3rem;color:var(--soft);font-size:.875rem}
footer p{border-top:1px solid var(--rule);padding-top:1.25rem;max-width:none;white-space:pre-line}
code{font:.9em/1.5 ui-monospace,"SF Mono",SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.vh{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.code{background:var(--raised);border-radius:10px;overflow-x:auto}
.code pre{margin:0;padding:1rem 1.25rem;width:max-content}
.wide{overflow-x:auto;border:1px solid var(--rule);border-radius:10px}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:.9375rem;line-height:1.45;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:.9rem 1rem .7rem;font-weight:600}
caption>div{position:sticky;left:1rem;width:fit-content;max-width:calc(100vw - 5rem)}
caption span:first-child{display:inline-block;margin-right:1.25rem}
caption .mark{font-weight:400;font-size:.875rem;margin-right:1rem;white-space:nowrap}
th,td{text-align:left;vertical-align:top;padding:.6rem 1rem;border-top:1px solid var(--rule);white-space:pre-line;
min-width:6.5rem;max-width:26rem;overflow-wrap:break-word}
thead>tr>*{color:var(--soft);font-weight:500;font-size:.8125rem;background:var(--raised);vertical-align:bottom}
tbody th{font-weight:550;position:sticky;left:0;background:var(--paper)}
tbody th .mark{display:inline-block;width:1.4em;font-weight:700}
tr.different th,tr.different td,tr.unmet th,tr.unmet td{background:var(--raised)}
tr.different th{box-shadow:inset 3px 0 var(--high)}
tr.unmet th{box-shadow:inset 3px 0 var(--max)}
.mark.same{color:var(--same)}.mark.different{color:var(--high)}.mark.unmet{color:var(--max)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));
gap:1.5rem clamp(1rem,3vw,2rem);margin:2rem 0 0}
.facts div{border-top:2px solid var(--c);padding-top:.8rem}
.facts dt{font-size:.875rem;color:var(--soft)}
.facts dd{margin:.15rem 0 0;font-size:clamp(1.6rem,1.3rem + 1.1vw,2.125rem);line-height:1.15;font-weight:620;
letter-spacing:-.02em;font-variant-numeric:tabular-nums;color:var(--c)}
.facts .remark{font-size:.875rem;line-height:1.45;font-weight:400;letter-spacing:0;color:var(--soft);margin-top:.35rem}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));gap:1.75rem 2.5rem}
.columns>*{min-width:0}
figure{margin:0}
section>*+*{margin-top:1.75rem}
section>figure+figure{margin-top:3rem}
section>h2+*{margin-top:0}
figcaption{font-size:.875rem;color:var(--soft);margin-top:.75rem;max-width:42rem}
.tree figcaption{font-weight:600;font-size:1rem;color:var(--ink);margin:0 0 .75rem}
.tree ul{list-style:none;margin:0;padding:0}
.tree li{position:relative;padding:.2rem 0}
.tree ul ul{margin-left:.45rem;padding-left:1.15rem}
.tree ul ul>li::before{content:"";position:absolute;left:-1.15rem;top:-.2rem;height:1.25rem;width:.75rem;
border:solid var(--soft);opacity:.5;border-width:0 0 1px 1px;border-bottom-left-radius:5px}
.tree ul ul>li:not(:last-child)::after{content:"";position:absolute;left:-1.15rem;top:0;bottom:0;
border-left:1px solid var(--soft);opacity:.5}
.tree div{display:flex;flex-wrap:wrap;gap:0 .75rem;align-items:baseline}
.tree code{overflow-wrap:anywhere}
.owner{color:var(--c);font-size:.8125rem;font-weight:550;white-space:nowrap}
.details{color:var(--soft);font-size:.8125rem;font-variant-numeric:tabular-nums}
"""

_PLOT = """
.k-cgroupfs{--c:var(--cgroupfs);--dash:none}.k-systemd{--c:var(--systemd);--dash:9 4}
.k-delegated{--c:var(--delegated);--dash:2.5 3.5}.k-other,.k-engine{--c:var(--other);--dash:12 3 2 3}
.k-foreign,.m-kill{--c:var(--max)}.k-plain,.m-event{--c:var(--ink)}
.r-max{--c:var(--max)}.r-high{--c:var(--high);--dash:7 5}
.plot .title{font-weight:600;margin:0 0 .25rem}
.plot>svg{display:block;width:100%;overflow:visible}
.plot svg svg{overflow:visible}
.plot text{font-size:12px;fill:var(--soft);font-variant-numeric:tabular-nums}
.plot .grid{stroke:var(--rule)}
.plot .base,.plot .tick{stroke:var(--soft)}
.plot path{fill:none;vector-effect:non-scaling-stroke}
.plot .line{stroke:var(--c);stroke-width:2;stroke-dasharray:var(--dash);stroke-linejoin:round}
.plot .area{fill:var(--c);fill-opacity:.07}
.plot .marker{fill:var(--c);stroke:var(--paper);stroke-width:1.5}
.plot .lane{stroke:var(--c);stroke-width:8}
.plot .rule{stroke:var(--c);stroke-width:1.75;stroke-dasharray:var(--dash,none)}
.plot [class^=r-] text,.plot .label,.plot .name{fill:var(--c);font-weight:600;paint-order:stroke;stroke:var(--paper);
stroke-width:4px;stroke-linejoin:round}
.plot .name{font-size:14px}
.plot .name tspan{fill:var(--soft);font-weight:400}
.plot .mark{stroke:var(--c);stroke-width:1.5;stroke-dasharray:5 3}
.plot .m-kill .mark{stroke-dasharray:none}
.plot .cross{stroke:var(--c);stroke-width:2.5}
.plot circle.badge{fill:var(--c)}
.plot .number{fill:var(--paper);font-size:11px;font-weight:700}
.plot .slices{fill:transparent}
.plot .slices rect:hover{fill:var(--ink);fill-opacity:.08}
.plot .phase{stroke:var(--c);stroke-width:1.25;fill:var(--c)}
.plot .tint .phase{fill-opacity:.12}
.plot .tint .number{fill:var(--ink)}
.key{list-style:none;display:flex;flex-wrap:wrap;gap:.3rem 1.5rem;margin:.35rem 0 0;padding:0;font-size:.875rem;
line-height:1.5;color:var(--soft);font-variant-numeric:tabular-nums}
.key li{display:flex;align-items:baseline;gap:.5rem;flex-wrap:nowrap}
.key b{color:var(--ink);font-weight:600}
.key .swatch{flex:none;height:12px;overflow:visible}
.key .swatch svg{overflow:visible}
span.badge{flex:none;display:inline-block;min-width:1.3rem;border-radius:1rem;text-align:center;font-size:.75rem;
line-height:1.3rem;font-weight:700;background:var(--c,var(--soft));color:var(--paper)}
"""

_MEDIA = """
@media (max-width:40rem){.plot .label{display:none}table{width:max-content;min-width:100%}
td{max-width:15rem}tbody th{max-width:8.5rem;overflow-wrap:anywhere}}
@media print{html{font-size:80%}.skip,nav{display:none}.wide,.code{overflow:visible}.code pre{white-space:pre-wrap;
width:auto}h2{break-after:avoid}figure,tr,.facts,.key{break-inside:avoid}*{print-color-adjust:exact}}
"""


def _colours(values: dict[str, str]) -> str:
    return ":root{" + ";".join(f"--{name}:{value}" for name, value in values.items()) + "}"


# Paper is white: the dark colours are for screens alone.
STYLE = (f"{_colours(LIGHT)}\n@media screen and (prefers-color-scheme:dark){{{_colours(DARK)}}}"
         f"{_PAGE}{_PLOT}{_MEDIA}")
