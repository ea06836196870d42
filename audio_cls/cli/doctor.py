"""`audio-cls doctor FILE.py`: does a part of one's own hold what training, resuming and comparing need?"""

from __future__ import annotations

from pathlib import Path

import click

from audio_cls.cli.console import progress, say, table


@click.command("doctor")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Leave out what takes seconds: export and ONNX.")
@click.pass_context
def doctor(ctx: click.Context, files: tuple[Path, ...], quick: bool) -> None:
    """Check the models, losses, augmentations ... that FILES declare, and say in plain words what is wrong.

    Exit code 0: all is well. 2: something is wrong.
    """
    from audio_cls.core.errors import UserError
    from audio_cls.core.loading import load_files
    from audio_cls.doctor.checking import check_part, checks_of
    from audio_cls.doctor.export import SLOW
    from audio_cls.runs.part_files import all_parts, entry_of, is_own, part_name

    load_files(files)
    entries = {file.resolve() for file in files}
    parts = [cls for cls in dict.fromkeys(all_parts()) if is_own(cls) and entry_of(cls) in entries]
    if not parts:
        raise UserError(
            f"{', '.join(map(str, files))}: no parts here: a part is a subclass with a kind, such as class Tiny(audio_cls.Model, kind='tiny')"
        )
    findings = []
    with progress("checking") as tell:
        for k, part in enumerate(parts):
            tell(k, len(parts), part_name(part))
            only = None if not quick else set(checks_of(part)) - SLOW
            findings += check_part(part, only=only)
    rows = [[f.part, f.check, f.status + (f": {f.what}" if f.status == "skipped" else "")] for f in findings]
    table("checks", ["part", "check", ""], rows)
    wrong = [f for f in findings if f.status == "wrong"]
    for f in wrong:
        say(f"\n{f.part}, {f.check}: {f.what}\n  what to do: {f.advice}\n  where: {f.where}")
    n = len(parts)
    say(
        f"\n{n} part{'s' * (n != 1)}: "
        + (f"{len(wrong)} of {len(findings)} checks found something wrong" if wrong else "all is well")
    )
    ctx.exit(2 if wrong else 0)
