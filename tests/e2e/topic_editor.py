"""The language server with an editor that is not ours: Neovim's own client, without a window."""
import json, subprocess
from harness import Failed, check

SCRIPT = """log_level=3
socket=udp:127.0.0.1:5060
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "signaling.so"
modparam("tm", "fr_timeout", 5)
route {
    if ($rU == "x") { t_rely(); }
    route(away);
    t_on_failure("again");
    t_re
}
route[away] { exit; }
failure_route[again] { route(away); }
"""
OLD = """debug=3
listen=udp:127.0.0.1:5060
loadmodule "tm.so"
loadmodule "sipmsgops.so"
route {
    if (is_method("INVITE")) { xlog("L_INFO", "to $tU\\n"); };
    nonsense();
}
"""
# Runs in Neovim: opens a script, asks what an editor asks, and writes what it was told as JSON.
LUA = r"""
local told = {}
local here = vim.fn.getcwd()
vim.cmd("edit " .. here .. "/opensips.cfg")
local buffer = vim.api.nvim_get_current_buf()
local client = vim.lsp.start_client({name = "fermata", cmd = {vim.env.FERMATA, "lsp"}, root_dir = here})
vim.lsp.buf_attach_client(buffer, client)
assert(vim.wait(20000, function() return #vim.diagnostic.get(buffer) > 0 end, 20), "no diagnostics")
local function problems()
  local list = {}
  for _, d in ipairs(vim.diagnostic.get(buffer)) do table.insert(list, {d.lnum, d.severity, d.message}) end
  return list
end
told.problems = problems()
local function ask(method, line, character, more)
  local params = {textDocument = {uri = vim.uri_from_bufnr(buffer)}, position = {line = line, character = character}}
  for key, value in pairs(more or {}) do params[key] = value end
  local answers = vim.lsp.buf_request_sync(buffer, method, params, 20000)
  local answer = answers and answers[client]
  local wrong = answer and (answer.error or answer.err)
  return wrong and {error = wrong.message} or answer.result
end
told.hover = ask("textDocument/hover", 5, 18)
told.variable = ask("textDocument/hover", 7, 10)
told.completion = ask("textDocument/completion", 10, 8)
told.definition = ask("textDocument/definition", 8, 12)
told.references = ask("textDocument/references", 12, 8, {context = {includeDeclaration = true}})
told.symbols = ask("textDocument/documentSymbol", 0, 0)
told.refused = ask("textDocument/rename", 8, 12, {newName = "two words"})
-- Neovim itself makes the edits of the rename.
local edit = ask("textDocument/rename", 8, 12, {newName = "far"})
vim.lsp.util.apply_workspace_edit(edit, "utf-16")
told.renamed = vim.api.nvim_buf_get_lines(buffer, 0, -1, false)
-- The mistakes are mended: the diagnostics go.
vim.api.nvim_buf_set_lines(buffer, 7, 8, false, {'    if ($rU == "x") { t_relay(); }'})
vim.api.nvim_buf_set_lines(buffer, 10, 11, false, {})
vim.wait(20000, function() return #vim.diagnostic.get(buffer, {severity = vim.diagnostic.severity.ERROR}) == 0 end, 20)
told.mended = problems()
local edits = ask("textDocument/formatting", 0, 0, {options = {tabSize = 4, insertSpaces = true}})
vim.lsp.util.apply_text_edits(edits, buffer, "utf-16")
told.formatted = vim.api.nvim_buf_get_lines(buffer, 0, -1, false)
-- A script of 2.1.
vim.cmd("edit! " .. here .. "/old.cfg")
local old = vim.api.nvim_get_current_buf()
vim.lsp.buf_attach_client(old, client)
vim.wait(20000, function() return #vim.diagnostic.get(old) > 0 end, 20)
told.old = {}
for _, d in ipairs(vim.diagnostic.get(old)) do table.insert(told.old, {d.lnum, d.severity, d.message}) end
vim.lsp.stop_client(client)
vim.wait(5000, function() return vim.lsp.client_is_stopped(client) end, 20)
told.stopped = vim.lsp.client_is_stopped(client)
local file = io.open(here .. "/told.json", "w")
file:write(vim.json.encode(told))
file:close()
vim.cmd("qall!")
"""


def test_neovim(place):
    (place.dir / "opensips.cfg").write_text(SCRIPT)
    (place.dir / "old.cfg").write_text(OLD)
    (place.dir / "ask.lua").write_text(LUA)
    import os
    done = subprocess.run(["nvim", "--headless", "--clean", "-n", "-c", "luafile ask.lua"], cwd=place.dir, capture_output=True, text=True, timeout=90,
                          stdin=subprocess.DEVNULL, env={**os.environ, "FERMATA": str(place.program), "HOME": str(place.dir)})
    if not (place.dir / "told.json").exists():
        raise Failed(f"Neovim wrote nothing: {done.stdout}{done.stderr}")
    told = json.loads((place.dir / "told.json").read_text())
    errors = sorted((line, text) for line, severity, text in told["problems"] if severity == 1)
    check([line for line, _ in errors], [7, 10], errors)
    check("t_relay" in errors[0][1], True, errors[0])
    check("How long an INVITE may wait" in told["hover"]["contents"]["value"], True)
    check("user of the Request-URI" in told["variable"]["contents"]["value"], True)
    labels = [i["label"] for i in told["completion"]["items"]]
    check(({"t_relay", "t_reply"} <= set(labels), "log_level" in labels), (True, False), labels)
    check([d["range"]["start"]["line"] for d in told["definition"]], [12])
    check(sorted(d["range"]["start"]["line"] for d in told["references"]), [8, 12, 13])
    check([s["name"] for s in told["symbols"]], ["route", "route[away]", "failure_route[again]"])
    check("letters" in told["refused"]["error"], True)
    renamed = SCRIPT.replace("away", "far").splitlines()
    check(told["renamed"], renamed)
    check([p for p in told["mended"] if p[1] == 1], [])
    fresh = place.dir / "formatted.cfg"
    fresh.write_text("\n".join(told["formatted"]) + "\n")
    check(subprocess.run([place.program, "fmt", "--check", fresh], capture_output=True).returncode, 0, "formatted")
    check([(line, "nonsense" in text) for line, severity, text in told["old"] if severity == 1], [(6, True)], told["old"])
    check(told["stopped"], True)
