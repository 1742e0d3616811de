"""The same questions about routes, asked of what people use today: networkx, DuckDB's recursive CTE, OR-tools CP-SAT.

Run by `factotum bench routes` in a virtual environment of the benchmark's own: routes_rival.py QUESTIONS.json OUT.json. Imports nothing
of the house. QUESTIONS: days (each: stops, edges as pairs of indices, gains as whole numbers) and k. OUT: seconds and what was found,
by name; what cannot be imported is named with why."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from itertools import islice
from typing import Any


def main(questions: str, out: str) -> None:
    """Every rival that is installed."""
    with open(questions, encoding="utf-8") as file:
        asked: dict[str, Any] = json.load(file)
    figures: dict[str, Any] = {}
    for name, ask in (("networkx", _networkx), ("duckdb", _duckdb), ("cp_sat", _cp_sat)):
        try:
            figures[name] = ask(asked)
        except ImportError as error:
            figures[name] = {"missing": str(error)}
    with open(out, "w", encoding="utf-8") as file:
        json.dump(figures, file)


def _networkx(asked: dict[str, Any]) -> dict[str, Any]:
    networkx: Any = import_module("networkx")
    day = asked["days"][asked["listed"]]
    graph = networkx.DiGraph()
    graph.add_edges_from(day["edges"])
    graph.add_edges_from(("from", stop) for stop in range(day["stops"]))
    graph.add_edges_from((stop, "to") for stop in range(day["stops"]))
    listed, list_s = _timed(lambda: sum(1 for _ in networkx.all_simple_paths(graph, "from", "to")))
    whole = networkx.DiGraph()
    most = max(max(day["gains"]) for day in asked["days"]) + 1
    for number, day in enumerate(asked["days"]):
        gate, after = ("gate", number), ("gate", number + 1)
        whole.add_edge(gate, after, weight=0)
        for stop, gain in enumerate(day["gains"]):
            whole.add_edge(gate, (number, stop), weight=most - gain)
            whole.add_edge((number, stop), after, weight=0)
        for one, other in day["edges"]:
            whole.add_edge((number, one), (number, other), weight=most - day["gains"][other])
    for _, _, said in whole.edges(data=True):  # the heaviest path
        said["gain"] = most - said["weight"] if said["weight"] else 0
    best, best_s = _timed(lambda: networkx.dag_longest_path_length(whole, weight="gain"))
    end = ("gate", len(asked["days"]))
    _, yen_s = _timed(lambda: list(islice(networkx.shortest_simple_paths(whole, ("gate", 0), end, weight="weight"), asked["k"])))
    return {"version": networkx.__version__, "listed": listed, "list_s": list_s, "best": best, "best_s": best_s, "yen_k_s": yen_s}


def _duckdb(asked: dict[str, Any]) -> dict[str, Any]:
    duckdb: Any = import_module("duckdb")
    day = asked["days"][asked["listed"]]
    base = duckdb.connect(":memory:", config={"threads": 1})
    base.execute("create table hop(a integer, b integer)")
    base.executemany("insert into hop values (?, ?)", day["edges"])
    text = (
        "with recursive route(last, mask) as (select stop, 1::ubigint << stop from range(?) as all_stops(stop) "
        "union all select b, mask | (1::ubigint << b) from route join hop on last = a) select count(*), count(distinct mask) from route"
    )
    answer, seconds = _timed(lambda: base.execute(text, [day["stops"]]).fetchone())
    return {"version": duckdb.__version__, "listed": answer[0], "list_s": seconds}


def _cp_sat(asked: dict[str, Any]) -> dict[str, Any]:
    ortools: Any = import_module("ortools")
    cp_model: Any = import_module("ortools.sat.python.cp_model")
    model = cp_model.CpModel()
    terms = []
    for day in asked["days"]:
        end = day["stops"]
        arcs = [(end, end, model.new_bool_var(""))]
        for stop, gain in enumerate(day["gains"]):
            chosen = model.new_bool_var("")
            arcs += [(stop, stop, chosen.negated()), (end, stop, model.new_bool_var("")), (stop, end, model.new_bool_var(""))]
            terms.append(gain * chosen)
        arcs += [(one, other, model.new_bool_var("")) for one, other in day["edges"]]
        model.add_circuit(arcs)
    model.maximize(sum(terms))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_time_in_seconds = 60.0
    status, seconds = _timed(lambda: solver.solve(model))
    return {"version": ortools.__version__, "best": solver.objective_value, "best_s": seconds, "optimal": status == cp_model.OPTIMAL}


def _timed(what: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    answer = what()
    return answer, time.perf_counter() - began


if __name__ == "__main__":
    main(*sys.argv[1:3])
