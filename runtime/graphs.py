"""
CUDA graphs: the kernels of a function, recorded once and launched together each time after.

A graph reads and writes the same addresses each time. So the function takes its input from tensors that stay where they
are, leaves its results in such tensors, and asks the device for no value.
"""
import sys

import torch

failed = []  # the first error of a capture in this process

WARM_UP = 2  # calls before the capture, in which libraries allocate their workspaces


def capture(function):
    """A function that replays what `function` does on the current GPU. `function` itself is called a few times."""
    caches_casts, current = torch.is_autocast_cache_enabled(), torch.cuda.current_stream()
    torch.set_autocast_cache_enabled(False)  # a graph must not read casts of weights that are freed later
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                function()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # other threads, such as one that copies the next batch, may use the device meanwhile
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            function()
    except RuntimeError:  # torch leaves its stream of the capture behind, and the generator of random numbers in it
        torch.cuda.set_stream(current)
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        generator.graphsafe_set_state(generator.clone_state())
        raise
    finally:
        torch.set_autocast_cache_enabled(caches_casts)
    return graph.replay


def give_up(error):
    """No more graphs in this process: steps run as they are, more slowly. Says so once."""
    failed.append(error)
    print(f"decoding without CUDA graphs, which is slower: {str(error).splitlines()[0]}", file=sys.stderr)


def place_of(model):
    """What a graph of a model depends on beside the tensors' shapes: autocast, training mode, addresses of weights."""
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    return dtype, model.training, tuple(weight.data_ptr() for weight in model.parameters())
