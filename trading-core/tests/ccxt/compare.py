"""Checks the simulated exchanges with a client that knows nothing of us: ccxt.

Watches trades of each simulated exchange through ccxt.pro for some seconds and compares every one of them with
the market's own answer (GET /control/trade): id, price, amount, side and time. Prints a line per exchange; exits
with 1 on any difference, on a trade missed, or when fewer trades than asked for were seen.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python compare.py http://127.0.0.1:9400
"""

import argparse
import asyncio
import json
import os
import sys
import urllib.parse
import urllib.request
from decimal import Decimal

# The simulator is on loopback: a proxy in the environment would only be in the way.
for name in ("http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)

import ccxt.pro  # noqa: E402  (after the environment is clean)

EXCHANGES = {}
SPOT_ONLY = {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False}


def exchange(client):
    """A function that makes a client of a simulated exchange of its own name, and says what to watch there."""
    EXCHANGES[client.__name__] = client
    return client


@exchange
def binance(http, ws):
    api = {"public": f"{http}/binance/api/v3", "ws": {"spot": f"{ws}/binance/ws"}}
    return ccxt.pro.binance({"urls": {"api": api}, "options": SPOT_ONLY}), "BTC/USDT"


@exchange
def bitstamp(http, ws):
    api = {"public": f"{http}/bitstamp/api", "ws": f"{ws}/bitstamp"}
    return ccxt.pro.bitstamp({"urls": {"api": api}}), "BTC/USD"


@exchange
def coinbase(http, ws):
    api = {"public": f"{http}/coinbase", "ws": f"{ws}/coinbase"}
    return ccxt.pro.coinbaseexchange({"urls": {"api": api}}), "BTC/USD"


@exchange
def kraken(http, ws):
    api = {"public": f"{http}/kraken", "ws": {"publicV2": f"{ws}/kraken/v2"}}
    return ccxt.pro.kraken({"urls": {"api": api}}), "BTC/USD"


@exchange
def okx(http, ws):
    api = {"rest": f"{http}/okx", "ws": f"{ws}/okx/ws/v5"}
    return ccxt.pro.okx({"urls": {"api": api}, "options": SPOT_ONLY}), "BTC/USDT"


@exchange
def bybit(http, ws):
    api = {"public": f"{http}/bybit", "ws": {"public": {"spot": f"{ws}/bybit/v5/public/spot"}}}
    return ccxt.pro.bybit({"urls": {"api": api}, "options": SPOT_ONLY}), "BTC/USDT"


# Names that are not in the letters and digits of all others: watched after the common one.
UNUSUAL = {"binance": "币安人生/USDT", "kraken": "ETH2.S/ETH"}


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def truth(base, exchange, symbol, first, last):
    """The trades first..=last as the market has them, by id."""
    trades = {}
    while first <= last:
        query = {"exchange": exchange, "symbol": symbol, "from": first, "to": last}
        page = get(f"{base}/control/trade?{urllib.parse.urlencode(query)}")
        trades.update((trade["id"], trade) for trade in page)
        first = page[-1]["id"] + 1
    return trades


async def watch(client, symbol, seconds):
    """Every trade that arrives within the time, oldest first."""
    seen = []
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while (left := deadline - loop.time()) > 0:
        try:
            seen.extend(await asyncio.wait_for(client.watch_trades(symbol), left))
        except asyncio.TimeoutError:
            break
    return seen


def expected(exchange, trade, trades):
    """What the client should have made of this id; OKX sends taker's orders, which are sums of trades."""
    last = int(trade["id"])
    count = int(trade["info"].get("count", 1)) if exchange == "okx" else 1
    parts = [trades[n] for n in range(last - count + 1, last + 1)]
    return {
        "price": Decimal(parts[-1]["price"]),
        "amount": sum(Decimal(part["quantity"]) for part in parts),
        # ccxt turns the maker side that Coinbase sends into the taker side.
        "side": parts[-1]["side"],
        "timestamp": parts[-1]["timestamp_us"] // 1000,
    }, count


def differences(base, exchange, symbol, seen):
    """Lines about what is wrong; nothing when all is right."""
    ids = [int(trade["id"]) for trade in seen]
    trades = truth(base, exchange, symbol, min(ids) - 16, max(ids))
    wrong, before = [], None
    for number, trade in zip(ids, seen):
        want, count = expected(exchange, trade, trades)
        # ccxt's numbers are the shortest text that is the same float: digits, not trailing zeros.
        have = {key: trade[key] for key in want}
        have["price"], have["amount"] = (Decimal(str(have[key])) for key in ("price", "amount"))
        wrong += [f"{number} {key}: {have[key]} is not {want[key]}" for key in want if have[key] != want[key]]
        # Ids that are no trade's here are nobody's, or those of other pairs.
        if before is not None and any(n in trades for n in range(before + 1, number - count + 1)):
            wrong.append(f"{number} follows {before}")
        before = number
    return wrong


async def check(base, exchange, seconds, least):
    ws = "ws" + base.removeprefix("http")
    client, common = EXCHANGES[exchange](base, ws)
    symbols = [common, *([UNUSUAL[exchange]] if exchange in UNUSUAL else [])]
    try:
        await client.load_markets()
        watched = [(symbol, await watch(client, symbol, seconds)) for symbol in symbols]
    except Exception as error:  # whatever ccxt could not read is what this is looking for
        print(f"{exchange}: FAILED {type(error).__name__}: {error}")
        return False
    finally:
        await client.close()
    is_right = True
    for symbol, seen in watched:
        wrong = await asyncio.to_thread(differences, base, exchange, symbol, seen) if seen else []
        verdict = "ok" if len(seen) >= least and not wrong else "FAILED"
        is_right = is_right and verdict == "ok"
        compared = f"{len(seen)} trades of {symbol} compared, {len(wrong)} differences"
        print(f"{exchange}: {verdict} {compared}, {len(client.markets)} markets")
        for line in wrong[:5]:
            print(f"  {line}")
    return is_right


async def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("base", help="where the simulator listens, as http://127.0.0.1:9400")
    arguments.add_argument("--seconds", type=float, default=5)
    arguments.add_argument("--least", type=int, default=20, help="trades to see of each exchange")
    arguments.add_argument("--exchange", action="append", choices=EXCHANGES, help="default: all")
    options = arguments.parse_args()
    base = options.base.rstrip("/")
    checks = [check(base, name, options.seconds, options.least) for name in options.exchange or EXCHANGES]
    return all(await asyncio.gather(*checks))


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
