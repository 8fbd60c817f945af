"""Find the best molecule with few simulations: simulate some, train on them, let the model say which to simulate next.

Simulations run on the farm. The model is trained in the script's own process, where it need not be sent about.
"""

import os
import threading
from concurrent.futures import as_completed

import parsl
from parsl.app.app import join_app, python_app
from parsl.config import Config
from parsl.dataflow.states import States
from parsl.executors import HighThroughputExecutor
from parsl.executors.threads import ThreadPoolExecutor

MOLECULES = [round(-2.0 + 0.05 * number, 2) for number in range(81)]


@python_app(executors=["simulations"])
def simulate(molecule):
    import math
    import os

    return molecule, math.exp(-((molecule - 0.7) ** 2)) + 0.3 * math.exp(-((molecule + 1.2) ** 2)), os.getpid()


@python_app(executors=["model"])
def train(*known):
    """The model: the energy of the nearest known molecule, more the farther that is away."""
    points = [(molecule, energy) for molecule, energy, _ in known]

    def predict(molecule):
        distance, energy = min((abs(molecule - other), energy) for other, energy in points)
        return energy + 0.5 * distance

    return predict  # a closure: nothing of it leaves the process


@python_app(executors=["model"])
def choose(predict, done, number=4):
    left = [molecule for molecule in MOLECULES if molecule not in done]
    return sorted(left, key=predict, reverse=True)[:number], os.getpid(), threading.current_thread().name


@join_app
def next_batch(chosen):
    return [simulate(molecule) for molecule in chosen[0]]


def main():
    finished, lock = [], threading.Lock()

    def note(future):
        with lock:
            finished.append(future.result()[0])

    known = []
    first = [simulate(molecule) for molecule in MOLECULES[::20]]
    for future in first:
        future.add_done_callback(note)
    for future in as_completed(first, timeout=60):
        known.append(future.result())
    here = set()
    for _ in range(6):
        predict = train(*known)
        chosen = choose(predict, {molecule for molecule, _, _ in known})
        known.extend(next_batch(chosen).result())
        here.add(chosen.result()[1:])
    best = max(known, key=lambda point: point[1])
    print(f"best {best[0]} with {best[1]:.3f} after {len(known)} of {len(MOLECULES)} simulations")
    print("told of", sorted(finished))
    print("model here", {pid for pid, _ in here} == {os.getpid()}, {name.split("_")[0] for _, name in here})
    print("simulated elsewhere", os.getpid() not in {pid for _, _, pid in known})


if __name__ == "__main__":
    farm = HighThroughputExecutor(label="simulations", max_workers_per_node=2)
    here = ThreadPoolExecutor(label="model", max_threads=2, thread_name_prefix="model")
    with parsl.load(Config(executors=[farm, here])) as dfk:
        main()
        parsl.wait_for_current_tasks()
        print("executors", sorted(dfk.executors), "failed", dfk.task_state_counts[States.failed])
