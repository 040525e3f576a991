"""Transfers through the TLS proxy, one after the other, while something else is done to the machine.

  traffic.py https://NAME CA.pem FOLDER     until FOLDER/stop exists; then FOLDER/traffic.json says
                                            {"sent", "completed", "others"}
"""

import http.client
import json
import ssl
import sys
import urllib.parse
import uuid
from pathlib import Path


def main(url, authority, folder):
    context = ssl.create_default_context(cafile=authority)
    host = urllib.parse.urlsplit(url).hostname
    sent, completed, others = 0, 0, []
    connection = None
    while not (Path(folder) / "stop").exists():
        sent += 1
        try:
            connection = connection or http.client.HTTPSConnection(host, timeout=30, context=context)
            headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
            connection.request("POST", "/transaction", '{"from":1,"to":2,"amount":1}', headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            others.append(repr(error))
            connection = None
            continue
        if answer.status == 200:
            completed += 1
        else:
            others.append(f"{answer.status} {text[:200]}")
    report = {"sent": sent, "completed": completed, "others": others[:5]}
    (Path(folder) / "traffic.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
