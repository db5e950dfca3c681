"""Clients that ask `pneumo serve` for a while: films answered, waiting times, memory of the server.

    python benchmarks/load.py FILE.pneumo --clients 4 --seconds 60
"""
import json, subprocess, sys, threading, time
from pathlib import Path

import click
import httpx
import numpy as np
import psutil

PNEUMO = str(Path(sys.executable).with_name("pneumo"))

def phantoms(count):
    "Films as PNG."
    import cv2
    from pneumo_nb.phantom import draw_anatomy, draw_film
    from pneumo_nb.run import rng_for
    kinds = ("normal", "bacteria", "virus")
    films = [draw_film(draw_anatomy(rng_for(1, n)), kinds[n % 3], rng_for(1, n, 1))[0] for n in range(count)]
    return [cv2.imencode(".png", film)[1].tobytes() for film in films]

def ask(client, film):
    "Status of one answer, seconds until it came."
    began = time.perf_counter()
    answer = client.post("/api/predict", files=dict(films=("film.png", film)))
    return answer.status_code, time.perf_counter() - began

def keep_asking(address, films, end, answers):
    "Ask until the end, one film after the other."
    with httpx.Client(base_url=address, timeout=120) as client:
        turn = 0
        while time.perf_counter() < end:
            answers.append(ask(client, films[turn % len(films)]))
            turn += 1

def side_by_side(count, function, *values):
    "Call a function in several threads."
    threads = [threading.Thread(target=function, args=values) for _ in range(count)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()

def load(address, process, films, clients, seconds):
    "What the clients saw, and the server's memory before, half-way and after."
    memory, answers, began = [process.memory_info().rss], [], time.perf_counter()
    half = threading.Timer(seconds / 2, lambda: memory.append(process.memory_info().rss))
    half.start()
    side_by_side(clients, keep_asking, address, films, began + seconds, answers)
    half.join()
    memory.append(process.memory_info().rss)
    waits = [wait for status, wait in answers if status == 200]
    return dict(clients=clients, requests=len(answers), answered=len(waits),
                per_second=round(len(waits) / (time.perf_counter() - began), 1),
                median_s=round(float(np.median(waits)), 4), p95_s=round(float(np.quantile(waits, .95)), 4),
                memory_mb=[round(rss / 2 ** 20, 1) for rss in memory])

def rush(address, films, clients):
    "How many of many clients that ask at once are answered, and how many are sent away."
    answers = []
    def once():
        with httpx.Client(base_url=address, timeout=120) as client: answers.append(ask(client, films[0])[0])
    side_by_side(clients, once)
    return {str(status): answers.count(status) for status in sorted(set(answers))}

@click.command()
@click.argument("bundle")
@click.option("--clients", default=4, show_default=True)
@click.option("--seconds", default=60., show_default=True)
@click.option("--at-once", default=40, show_default=True, help="Clients of the rush that follows.")
def main(bundle, clients, seconds, at_once):
    "Ask a server of BUNDLE that is started for it; print what came, as JSON."
    films = phantoms(8)
    command = subprocess.Popen([PNEUMO, "serve", bundle, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        address = next(line for line in command.stdout if line.startswith("Open ")).split()[1]
        process = psutil.Process(command.pid)
        keep_asking(address, films, time.perf_counter() + 2, [])   # warm
        seen = load(address, process, films, clients, seconds)
        click.echo(json.dumps(seen | dict(rush=rush(address, films, at_once)), indent=1))
    finally:
        command.terminate()
        command.wait()

if __name__ == "__main__": main()
