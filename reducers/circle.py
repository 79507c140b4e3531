"""The least-squares circle of weighted points, from their moments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.loops.compile import kernel

#: Least ratio of the variances along both principal axes; points below it lie on a line.
FLAT = 1e-9


@kernel
def circle_through(moments: NDArray[np.float64]) -> Any:
    """Centre, radius and rms distance (x, y, radius, rms), all NaN where there is no circle.

    ``moments`` (9,) are weighted sums of 1, x, y, x^2, x y, y^2, x z, y z and z^2, z = x^2 + y^2,
    about any point near the circle. There is none through less than three points, or on a line.

    It is "Hyper" of Al-Sharadqah and Chernov, Electron. J. Stat. 3, 886 (2009): of the circles
    A z + B x + C y + D = 0 that with the least mean square of the left side, under a constraint
    that leaves the radius no essential bias. About the points' mean, the constraint's multiplier e
    is the least root of a polynomial of fourth degree, to which Newton's method climbs from 0
    without passing it. The mean square of the left side is 4 e (radius^2 + 4 e); to first order
    in the distances, that is the mean square distance times 4 radius^2.
    """
    nan = np.nan
    s = moments[0]
    if not s > 0.0:
        return nan, nan, nan, nan
    p, q = moments[1] / s, moments[2] / s
    # Central moments: z' = z - 2 (p x + q y) + p^2 + q^2 about the mean (p, q).
    raw_xx, raw_xy, raw_yy = moments[3] / s, moments[4] / s, moments[5] / s
    xx, xy, yy = raw_xx - p * p, raw_xy - p * q, raw_yy - q * q
    raw_z = raw_xx + raw_yy
    z = xx + yy
    cov_xz, cov_yz = moments[6] / s - p * raw_z, moments[7] / s - q * raw_z
    xz = cov_xz - 2.0 * (p * xx + q * xy)
    yz = cov_yz - 2.0 * (p * xy + q * yy)
    var_z = moments[8] / s - raw_z * raw_z
    var_z += 4.0 * (p * p * xx + 2.0 * p * q * xy + q * q * yy - p * cov_xz - q * cov_yz)
    det = xx * yy - xy * xy
    if not det > FLAT * z * z:
        return nan, nan, nan, nan
    c0 = var_z * det - xz * xz * yy - yz * yz * xx + 2.0 * xz * yz * xy
    c1 = xz * xz + yz * yz - z * (var_z + 4.0 * det)
    c2 = var_z + 4.0 * z * z - 4.0 * det
    e = 0.0
    for _ in range(50):
        step = -(c0 + e * (c1 + e * (c2 - 4.0 * e * e))) / (c1 + e * (2.0 * c2 - 16.0 * e * e))
        if not (step > 0.0 and e + step > e):
            break
        e += step
    scale = 2.0 * (e * e - z * e + det)
    a = (xz * (yy - e) - yz * xy) / scale
    b = (yz * (xx - e) - xz * xy) / scale
    square = a * a + b * b + z - 2.0 * e
    if not 0.0 < square < np.inf:
        return nan, nan, nan, nan
    return a + p, b + q, np.sqrt(square), np.sqrt(e * (1.0 + 4.0 * e / square))
