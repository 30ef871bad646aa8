"""`ganinv` commands in this process."""

from ganinv.cli.main import main


def ok(capsys, *arguments):
    """What a command that succeeds prints."""
    code = main([str(a) for a in arguments])
    out = capsys.readouterr()
    assert code == 0, out.err
    return out.out


def refused(capsys, words, *arguments):
    """A command that is refused, in these words."""
    assert main([str(a) for a in arguments]) == 1
    said = capsys.readouterr().err
    assert words in said, said
