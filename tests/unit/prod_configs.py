"""Production configurations as people write them, made up for tests, in several styles."""

#: A dict that is filled step by step, conditions one after the other, a region appended.
STEPWISE = '''
import numpy as np
from somewhere import something

WIDE = 2 * 40
detectors = ["epix100", "jungfrau"]

def getROIs(run):
    """Regions of interest."""
    if isinstance(run, str):
        run = int(run)
    ret_dict = {}
    if run > 0:
        roi = {"ROI": [[0, 1], [10, 10 + WIDE], [20, 60]], "writeArea": True}
        ret_dict["epix100"] = [roi]
        if run >= 42 and not run == 50:
            ret_dict["epix100"].append(dict(ROI=np.array([[5, 15], [5, 25]]), proj_ax={"axis": 0}))
    return ret_dict
'''

#: One literal with everything, an early return, constants of the module, an f-string.
LITERAL = """
LAST, NAME = 30, "jungfrau"
CENTER = [87526.79, 79790.18]

def getAzIntParams(run):
    if run > LAST:
        return {f"{NAME}4M": {"center": CENTER, "dis_to_sam": 81.5, "eBeam": 9.5, "phiBins": 8}}
    return {
        f"{NAME}4M": {
            "center": CENTER,
            "dis_to_sam": 80.0 if run < 20 else 80 + 1 / 2,
            "eBeam": -(-9_500) / 1e3,
            "Pplane": 1,
            "qbin": [0.5 + 0.01 * i for i in range(101)],
        },
    }
"""

#: Elif chains, runs in lists and ranges, chained comparisons, helpers, loops, updates.
CHAINS = """
def shared(threshold, useRms=False):
    return {"threshold": threshold, "useRms": useRms}

def getDropletParams(run):
    out = {}
    for name in ("epix_1", "epix_2"):
        out[name] = shared(30)
    if run in [3, 4, 9] or run in range(12, 15):
        out["epix_1"].update({"thresholdLow": 20.0})
    elif 20 <= run < 25:
        out["epix_1"]["thresADU"], out["epix_2"]["thresADU"] = 80, 90
    elif run != 40:
        pass
    else:
        del_me = out.copy()
        out = {"epix_2": del_me["epix_2"]}
    return out
"""

#: What changes nothing in the world when it is read, and a lot when it is run.
HOSTILE = """
import os
from os import *
TOUCHED = open({path!r}, "w").write("run")
os.system("touch {path}")
@TOUCHED.decorate
class Config(open({path!r}, "w")):
    touched = __import__("os").system("touch {path}")
[x for x in (open({path!r}, "w"),)]
lambda: open({path!r}, "w")
if (y := open({path!r}, "w")):
    pass
while True:
    open({path!r}, "w")
with open({path!r}, "w") as f:
    f.write("run")
exec("open({path!r}, 'w')")

def getROIs(run, touched=open({path!r}, "w")):
    return {{"cam": [{{"ROI": [[0, 4], [0, 4]]}}]}}

def get_droplet(run):
    os.system("touch {path}")
    eval("__import__('os').system('touch {path}')")
    for _ in iter(lambda: open({path!r}, "w"), None):
        pass
    try:
        open({path!r}, "w")
    finally:
        pass
    return {{"cam": {{"threshold": 5, "useRms": open({path!r}, "w")}}, "b": open({path!r}, "w")}}

def get_azav(run):
    return open({path!r}, "w").__class__({path!r})
"""

#: Words of a command line that name the experiment.
EXP = ("--exp", "mfxx49820")


def one(function: str, **kwargs: object) -> str:
    """A configuration with one function, of one detector."""
    return f"import numpy as np\ndef {function}(run):\n    return {{'det': {kwargs!r}}}"


def lost(err: str) -> list[str]:
    """What an import says that it left out."""
    return [line.partition("left out: ")[2] for line in err.splitlines() if "left out" in line]
