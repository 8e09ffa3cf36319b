"""Real programs, what each is made to do inside, and the flags that it needs: docs/programs.md has a row for each."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """A program that works in a sandbox.

    :param name: as docs/programs.md has it.
    :param needs: commands without which the test is skipped.
    :param script: for ``sh``, in the directory /tmp.
    :param output: all that it writes to stdout.
    :param flags: of ``sandbox run``; DIR stands for the test's own directory, which is seen inside.
    :param as_root: further flags for root.
    :param who: ``root`` or ``user`` if the other one cannot run it.
    :param why: what the flags are for, or what to tell the program.
    :param before: a script for ``sh`` that runs outside, in DIR.
    :param command: replaces ``sh -c`` and the script.
    """

    name: str
    needs: tuple[str, ...]
    script: str
    output: str = "42\n"
    flags: str = ""
    as_root: str = ""
    who: str = ""
    why: str = ""
    before: str = ""
    command: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Its line in docs/programs.md."""
        flags = " ".join(filter(None, (self.flags, self.as_root))).replace("DIR/root", "DIR")
        return f"| {self.name} | {f'`{flags}`' if flags else ''} | {self.why} |"


HOME = "-e HOME=/tmp"
IN_HOME = "it writes to the home directory, which is read-only"
OWNERS = "--cap-add CHOWN --cap-add FOWNER"

HELLO = """cat >hello.c <<'END'
static long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}
void _start(void) { call(1, 1, (long)"42\\n", 3); call(60, 0, 0, 0); }
END
mkdir root && cc -static -nostdlib -fno-stack-protector -o root/hello hello.c
"""
HELLO_32 = """cat >hello.c <<'END'
static long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}
void _start(void) { call(4, 1, (long)"42\\n", 3); call(1, 0, 0, 0); }
END
cc -m32 -static -nostdlib -fno-stack-protector -fno-pie -o hello hello.c && ./hello
"""
WHEEL = """python3 -m venv v && v/bin/python - <<'END'
import zipfile
with zipfile.ZipFile("answer-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("answer.py", "answer = 42")
    wheel.writestr("answer-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: answer\\nVersion: 1.0\\n")
    wheel.writestr("answer-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr("answer-1.0.dist-info/RECORD", "")
END
v/bin/pip install -q --disable-pip-version-check --no-index *.whl
v/bin/python -c 'import answer; print(answer.answer)'
"""
POSTGRES = """PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)
initdb -D d --no-sync >log
pg_ctl -D d -o "-k /tmp -c listen_addresses=" -l log -w start >log
psql -h /tmp -Atc 'select 6 * 7' postgres
pg_ctl -D d -m immediate stop >log
"""
NGINX = """cat >conf <<'END'
pid /tmp/pid;
error_log /dev/null;
events {}
http {
    access_log off;
    client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    server { listen 80; location / { return 200 "42\\n"; } }
}
END
nginx -p /tmp -c conf && curl -s http://127.0.0.1/ && nginx -p /tmp -c conf -s stop 2>log
"""
SSHD = """ssh-keygen -q -t ed25519 -N '' -f host && ssh-keygen -q -t ed25519 -N '' -f key
mkdir -p /run/sshd
printf 'HostKey /tmp/host\\nAuthorizedKeysFile /tmp/key.pub\\nStrictModes no\\nPermitRootLogin yes\\n' >conf
ssh -F none -q -i key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
    -o ProxyCommand='/usr/sbin/sshd -i -f /tmp/conf' there echo 42
"""
DEB = """mkdir -p d/DEBIAN d/usr/share/answer && echo 42 >d/usr/share/answer/answer
printf 'Package: answer\\nVersion: 1\\nArchitecture: all\\nMaintainer: me\\nDescription: an answer\\n' >d/DEBIAN/control
printf '#!/bin/sh\\nuseradd --system answer\\n' >d/DEBIAN/postinst && chmod 755 d/DEBIAN/postinst
dpkg-deb -b d answer.deb >log && apt-get install -qq ./answer.deb >log 2>&1 && cat /usr/share/answer/answer
"""
ARCHIVE = "mkdir a b && tar --owner=1 --group=1 -cf a.tar a && "
TARBALL = """mkdir -p package app && echo 'module.exports = 42' >package/index.js
echo '{"name": "answer", "version": "1.0.0"}' >package/package.json && tar -czf answer.tgz package
cd app && echo '{}' >package.json && npm install --offline --no-audit --no-fund ../answer.tgz >log
node -p 'require("answer")'
"""
JAVA = """cat >Answer.java <<'END'
class Answer { public static void main(String[] argv) { System.out.println(6 * 7); } }
END
javac Answer.java && java Answer
"""
CARGO = """mkdir src && echo 'fn main() { println!("{}", 6 * 7) }' >src/main.rs
printf '[package]\\nname = "answer"\\nversion = "1.0.0"\\n' >Cargo.toml
cargo build -q --offline && target/debug/answer
"""
GO = """printf 'package main\\nimport "fmt"\\nfunc main() { fmt.Println(6 * 7) }\\n' >answer.go
go build answer.go && ./answer
"""
C = "printf '#include <stdio.h>\\nint main(void) { puts(\"42\"); }\\n' >a.c && "
SQLITE = "sqlite3 a.db 'pragma journal_mode = wal; create table t (a); insert into t values (42); select a from t'"
GIT = "-c user.name=me -c user.email=me@there -c init.defaultBranch=main"
MAKE = "printf 'all: a b\\na b:\\n\\t@echo 42 >$@\\n' >Makefile && make -j2 && cmp a b && cat a"
POOL = """cat >pool.py <<'END'
import multiprocessing
if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        print(sum(pool.map(abs, [-40, -2])))
END
python3 pool.py
"""

ROWS = (
    Row("java, javac", ("javac", "java"), JAVA),
    Row("node", ("node",), "node -e 'console.log(6 * 7)'"),
    Row("npm install", ("npm",), TARBALL, flags=HOME, why=f"{IN_HOME}; `-v $HOME/.npm:$HOME/.npm` keeps the cache"),
    Row("go build", ("go",), GO, flags=HOME, why=f"{IN_HOME}; `-v $HOME/.cache:$HOME/.cache` keeps the cache"),
    Row("cargo build --offline", ("cargo",), CARGO),
    Row("gcc", ("gcc",), C + "gcc a.c && ./a.out"),
    Row("make -j2", ("make",), MAKE),
    Row("git", ("git",), f"git {GIT} init -q a && git -C a {GIT} commit -q --allow-empty -m 42 && git clone -q a b && "
        "git -C b log --format=%s"),
    Row("pip install", ("python3",), WHEEL),
    Row("python multiprocessing", ("python3",), POOL),
    Row("postgres, initdb", ("initdb", "psql"), POSTGRES, as_root="-u postgres",
        why="as root: it refuses to run as root"),
    Row("nginx", ("nginx", "curl"), NGINX, as_root="-u www-data",
        why="as root: its workers change to another user, for which it would need capabilities"),
    Row("redis", ("redis-server", "redis-cli"), "redis-server --port 7000 --save '' --daemonize yes >log\n"
        "until redis-cli -p 7000 ping >log 2>&1; do :; done; redis-cli -p 7000 eval 'return 6 * 7' 0"),
    Row("sqlite", ("sqlite3",), SQLITE, "wal\n42\n"),
    Row("chromium --headless", ("chromium",), "echo '<p>42' >a.html; "
        "chromium --headless --no-sandbox --dump-dom a.html 2>log | grep -o 42",
        flags=HOME, why=f"{IN_HOME}. Its own `--no-sandbox` is needed, too, since the seccomp filter refuses new "
        "namespaces; without root, `--security-opt seccomp=unconfined` does instead"),
    Row("gdb", ("gdb", "gcc"), "echo 'int main(void) { return 42; }' >a.c && gcc -g a.c && "
        "gdb -q -batch -ex run -ex 'print $_exitcode' a.out 2>&1 | tail -n1", "$1 = 42\n"),
    Row("strace", ("strace",), "strace -f -e trace=none sh -c 'true & wait' 2>&1 | grep -c 'exited with 0'", "2\n"),
    Row("perf stat", ("perf",), "perf stat -x, -e task-clock true 2>log && echo 42", flags="--cap-add PERFMON",
        why="the seccomp filter refuses `perf_event_open` otherwise; `kernel.perf_event_paranoid` may be 2 at most"),
    Row("fakeroot", ("fakeroot",), "fakeroot sh -c 'touch f && chown 42:42 f && stat -c %u f' 2>log", who="root"),
    Row("fakeroot, without root", ("fakeroot",), "fakeroot sh -c 'touch f && chown 42:42 f && stat -c %u f'",
        flags="-u 0", who="user",
        why="an id that does not exist inside is an invalid argument for the kernel, which fakeroot does not hide"),
    Row("tar -x of other people's files", ("tar",), ARCHIVE + "tar -C b -xf a.tar && stat -c %u b/a", "1\n",
        flags=OWNERS, who="root", why="as root, tar gives each file to its owner; its `--no-same-owner` does instead"),
    Row("tar -x, without root", ("tar",), ARCHIVE + "tar -C b -xf a.tar && echo 42", who="user"),
    Row("ping", ("ping",), "ping -c1 -q 127.0.0.1 >log && echo 42"),
    Row("ssh, sshd", ("ssh", "ssh-keygen", "sshd"), SSHD, flags="--cap-add ALL --unmask /etc/shadow", who="root",
        why="sshd changes its user and root directory, and the owner of its terminal, and looks its users up in "
        "`/etc/shadow`; ssh alone needs none"),
    Row("ssh, without root", ("ssh",), "ssh -F none -G there | grep -m1 -o 'port 22'", "port 22\n", who="user",
        why="ssh's own `-F none`, or `-F` and a file of yours: ssh refuses the files of /etc/ssh/ssh_config.d, since "
            "their owner does not exist inside"),
    Row("apt-get install, dpkg -i", ("apt-get", "dpkg-deb"), DEB, flags="--overlay --cap-add ALL --unmask /etc",
        who="root", why="it changes / and the owners of files, and packages add users to `/etc/shadow`; "
        "`--network host` to download; `--commit DIR` keeps the result"),
    Row("tmux", ("tmux",), "export TERM=screen\ntmux new-session -d -x 42 -y 24 'tmux wait-for never' && "
        "tmux display-message -p '#{window_width}' && tmux kill-server"),
    Row("vim", ("vim",), "echo 41 >f && vim -es -u NONE -c 's/41/42/' -c wq f && cat f"),
    Row("mono", ("mcs", "mono"), "echo 'class A { static void Main() { System.Console.WriteLine(6 * 7); } }' >a.cs && "
        "mcs a.cs && mono a.exe"),
    Row("perl", ("perl",), "perl -e 'print 6 * 7, \"\\n\"'"),
    Row("R", ("Rscript",), "Rscript -e 'cat(6 * 7, \"\\n\", sep = \"\")'"),
    Row("ruby", ("ruby",), "ruby -e 'puts 6 * 7'"),
    Row("busybox", ("busybox",), "echo 42; ls /bin", "42\nbusybox\nls\nsh\n", flags="--rootfs DIR/root",
        why="any directory with a root file system",
        before="mkdir -p root/bin root/tmp; cp $(command -v busybox) root/bin; ln -s busybox root/bin/sh; "
               "ln -s busybox root/bin/ls"),
    Row("a static program alone", ("cc",), "", flags="--rootfs DIR/root", before=HELLO, command=("/hello",),
        why="docker's hello-world image is such a directory"),
    Row("a 32-bit program", ("cc",), HELLO_32, flags="--security-opt seccomp=moby",
        why="the default filter ends programs of other architectures by SIGSYS, docker's does not"),
)
