"""Runs of the timing system and encoders, in streams that do not march in step."""

from ffb.sources.xtc2_specs import SPECS, Service, timing_record
from ffb.sources.xtc2_writer import Xtc2Writer

SECOND = 1_000_000_000


def reading(k, i, position):
    """Shot ``i`` of stream ``k``: the first stream holds the timing system."""
    if k == 0:
        return timing_record(i, [40])
    return {"position": position, "missedTrig_cnt": 0, "error_cnt": 0, "latches": 0}


def streams(folder, spec, shots, rates, node=1):
    """Write streams of one detector each; stream k has every ``rates[k]``-th shot."""
    for k, every in enumerate(rates):
        path = folder / f"{spec.exp}-r{spec.run:04d}-s{k:03d}-c000.xtc2"
        writer = Xtc2Writer(path, spec.exp, spec.run, node=k + node)
        name = "timing" if k == 0 else f"enc{k}"
        slot = writer.declare(SPECS["timing" if k == 0 else "hrencoder"], name)
        writer.put(Service.CONFIGURE, spec.t0)
        writer.put(Service.BEGIN_RUN, spec.t0 + SECOND)
        writer.put(Service.ENABLE, spec.t0 + 2 * SECOND)
        for i in range(0, shots, every):
            value = reading(k, i, 10 * i + k)
            writer.put(Service.L1_ACCEPT, spec.t0 + (3 + i) * SECOND, [(slot, value)])
        writer.put(Service.END_RUN, spec.t0 + (3 + shots) * SECOND)
        writer.close()


def chunked(folder, spec, shots=5, ends=True):
    """Two streams of three files each; the streams turn to the next at different Enables."""
    run = f"{spec.exp}-r{spec.run:04d}"
    for k, name in enumerate(("timing", "enc")):
        sizes, path = [], folder / "all"
        writer = Xtc2Writer(path, spec.exp, spec.run, node=k + 1)
        slot = writer.declare(SPECS["timing" if k == 0 else "hrencoder"], name)
        chunk = writer.declare(SPECS["chunkinfo"], "chunkinfo")
        at, number = spec.t0, 0
        sizes.append(writer.put(Service.CONFIGURE, at))
        sizes.append(writer.put(Service.BEGIN_RUN, at + 1))
        cuts = [0]
        for step in range(4):
            at += SECOND
            turn = step == 1 or step == 2 + k
            number += turn
            told = {"filename": f"{run}-s{k:03d}-c{number:03d}.xtc2", "chunkid": number}
            sizes.append(writer.put(Service.ENABLE, at, [(chunk, told)] if turn else []))
            cuts += [sum(sizes)] if turn else []
            for i in range(step * shots, (step + 1) * shots):
                value = [(slot, reading(k, i, i))]
                stamp = at + 1000 * (1 + i % shots)
                sizes.append(writer.put(Service.L1_ACCEPT, stamp, value))
            sizes.append(writer.put(Service.DISABLE, at + 1_000_000))
        if ends:
            writer.put(Service.END_RUN, at + 2 * SECOND)
        writer.close()
        data = path.read_bytes()
        for n, (low, high) in enumerate(zip(cuts, [*cuts[1:], len(data)], strict=True)):
            (folder / f"{run}-s{k:03d}-c{n:03d}.xtc2").write_bytes(data[low:high])
        path.unlink()
    return run
