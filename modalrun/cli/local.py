import typer

app = typer.Typer(help="The local Modal server.")


@app.command()
def start() -> None:
    """x"""


@app.command()
def stop() -> None:
    """x"""
