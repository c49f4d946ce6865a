from onebox.command import run

run()
