"""Pictures of what the modules beside this one compute, by matplotlib.

Each function takes arrays, draws into the Axes it is given or into those of a new figure, and
returns the Axes: to add a title, to change a scale, to save `axes.figure`. None shows a figure.
"""

from jaxlstm.diagnostics.plots.curves import gradient_norms, loss_curves
from jaxlstm.diagnostics.plots.images import attention_map, coloured_text, heat_map

__all__ = ["attention_map", "coloured_text", "gradient_norms", "heat_map", "loss_curves"]
