"""Matplotlib, imported where a picture is drawn, and only there."""
from runtime.files import InputError


def pyplot_without_screen(backend, salt="", font_size=9):
    """
    matplotlib.pyplot. backend: "agg" draws PNG, "svg" SVG; salt: any text, for an SVG that is the same each time.
    InputError where matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError("matplotlib is not installed; pip install matplotlib") from None
    matplotlib.use(backend)
    if backend == "svg":
        matplotlib.rcParams.update({"svg.hashsalt": salt, "font.size": font_size})
    from matplotlib import pyplot
    return pyplot
