"""A look inside: what a network computes over time, how its gradient flows, what it is due to.

Arrays come out; the network stays as it is, and is trained as ever.
"""

from jaxlstm.diagnostics.attribution import (
    IntegratedGradients,
    integrated_gradients,
    saliency,
)
from jaxlstm.diagnostics.flow import GradientFlow, gradient_flow
from jaxlstm.diagnostics.gates import Saturation, saturation, time_constants
from jaxlstm.diagnostics.jacobians import jacobian_norms, jacobian_products, lyapunov_exponents
from jaxlstm.diagnostics.trace import Trace, trace
from jaxlstm.diagnostics.units import correlations

__all__ = [
    "GradientFlow",
    "IntegratedGradients",
    "Saturation",
    "Trace",
    "correlations",
    "gradient_flow",
    "integrated_gradients",
    "jacobian_norms",
    "jacobian_products",
    "lyapunov_exponents",
    "saliency",
    "saturation",
    "time_constants",
    "trace",
]
