"""The tensors of a term: metrics and deltas carried out, fermion lines and colours."""
from physics import colour
from physics.expression import Field
from runtime.files import InputError


def without_metrics(tensors):
    """(number, tensors) of a term with its metrics and deltas carried out: number * tensors is the same."""
    number, renamed, rest = 1, {}, []

    def final(index):
        while index in renamed:
            index = renamed[index]
        return index

    for tensor in tensors:
        if tensor.name not in ("g", "delta") or type(tensor) is Field:
            rest.append(tensor)
            continue
        left, right = (final(index.lstrip("+")) for index in tensor.indices)
        if left != right:
            renamed[left] = right
        elif tensor.name == "g":
            number *= 4
        else:
            raise InputError(f"delta_{{{','.join(tensor.indices)}}} is summed over its own index")
    if not renamed:
        return number, rest
    kept = [1 if type(tensor) is Field else 0 for tensor in rest]  # the label of a polarisation is no index
    return number, [
        tensor._replace(indices=tensor.indices[:n] + tuple(final(index.lstrip("+")) for index in tensor.indices[n:]))
        for tensor, n in zip(rest, kept)
    ]


def structure(tensors, legs_count):
    """The tensors of a term as (fermion lines, other factors, other factors of the conjugate, colour structure).

    A line is (starred leg, plain leg, [(matrix, its Lorentz index, that of the conjugate), ...]). The Lorentz index
    of leg 3 is m3, in the conjugate n3; summed ones are m1000, m1001, ... and n1000, ... For the colour structure
    see physics/colour.py.
    """
    ends = {}                                                # index -> the fields and tensors in which it occurs
    for tensor in tensors:
        for index in tensor.indices[1:] if type(tensor) is Field else tensor.indices:
            ends.setdefault(index.lstrip("+"), []).append(tensor)
    here, there = {}, {}                                     # index -> its FORM name in the amplitude, in the conjugate
    factors, mirrored, colours = [], [], []
    for k, (index, where) in enumerate(ends.items(), 1000):
        if len(where) != 2:
            raise InputError(f"index {index} occurs {len(where)} times in a term, expected 2")
        legs = [tensor for tensor in where if type(tensor) is Field]
        in_colour = any(index != leg.indices[-1].lstrip("+") for leg in legs)
        if in_colour:
            names = [f"{'c' if leg.kind else 'a'}{leg.leg}" for leg in legs]
            here[index] = names[0]
            if len(legs) == 2:
                colours.append(("d", *names))
        elif legs and not legs[0].kind:
            here[index], there[index] = f"m{legs[0].leg}", f"n{legs[0].leg}"
            if len(legs) == 2:
                factors.append(f"d_({here[index]},m{legs[1].leg})")
                mirrored.append(f"d_({there[index]},n{legs[1].leg})")
        else:
            here[index], there[index] = f"m{k}", f"n{k}"
    rows, starts, finish = {}, {}, {}                        # Dirac index -> the matrix whose row it is, the leg
    for tensor in tensors:
        bare = [index.lstrip("+") for index in tensor.indices]
        if type(tensor) is Field:
            if tensor.kind:
                (starts if tensor.starred else finish)[bare[-1]] = tensor.leg
        elif tensor.name == "gamma":
            rows[bare[1]] = ("gamma", here[bare[0]], there[bare[0]]), bare[2]
        elif tensor.name in ("P_L", "P_R", "gamma_5"):
            rows[bare[0]] = (tensor.name, None, None), bare[1]
        elif tensor.name.startswith("p_"):
            if not 1 <= int(tensor.name[2:]) <= legs_count:
                raise InputError(f"{tensor.name} is the momentum of no leg")
            factors.append(f"p{int(tensor.name[2:])}({here[bare[0]]})")
            mirrored.append(f"p{int(tensor.name[2:])}({there[bare[0]]})")
        else:                                                # a generator or f_SU3
            # a % marks a summed label
            labels = (here[index] if here[index][0] in "ac" else f"%{here[index]}" for index in bare)
            colours.append(("f" if tensor.name == "f_SU3" else "t", *labels))
    if len(starts) != len(finish):
        raise InputError(
            f"{len(starts)} starred and {len(finish)} plain spinors, expected as many of both: "
            "Majorana fermions are not supported"
        )
    lines = []
    for index, leg in starts.items():
        line = []
        while index in rows:
            matrix, index = rows.pop(index)
            line.append(matrix)
        if index not in finish:
            raise InputError(f"the fermion line from p_{leg} does not end in a plain spinor but in the index {index}; "
                             "transposed matrices, as Majorana fermions have, are not supported")
        lines.append((leg, finish.pop(index), line))
    if rows or finish:
        raise InputError(
            "the Dirac indices do not join all matrices and spinors into lines from a starred to a plain spinor"
        )
    return lines, factors, mirrored, colour.structure(colours)
