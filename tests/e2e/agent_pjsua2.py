"""A user agent of PJSUA2 without sound, for the tests: agent_pjsua2.py LOCAL_PORT SERVER_PORT USER PASSWORD.

Commands come line by line on standard input (call URI, hangup, quit); events go to standard output
(registered CODE, incoming, early, confirmed, rtp, closed CODE).
"""
import os, select, sys
import pjsua2 as pj


def say(*words):
    print(*words, flush=True)


class Call(pj.Call):
    heard = False

    def onCallState(self, _):
        info = self.getInfo()
        name = {pj.PJSIP_INV_STATE_EARLY: "early", pj.PJSIP_INV_STATE_CONFIRMED: "confirmed"}.get(info.state)
        if name:
            say(name)
        if info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            say("closed", info.lastStatusCode)

    def listen(self):
        """Says once that sound has come."""
        if not self.heard and self.isActive() and self.hasMedia():
            try:
                self.heard = self.getStreamStat(0).rtcp.rxStat.pkt > 5
            except pj.Error:
                return
            if self.heard:
                say("rtp")


class Account(pj.Account):
    def __init__(self):
        pj.Account.__init__(self)
        self.call = None

    def onRegState(self, param):
        say("registered" if param.code == 200 and param.expiration > 0 else "unregistered", param.code)

    def onIncomingCall(self, param):
        say("incoming")
        self.call = Call(self, param.callId)
        answer = pj.CallOpParam()
        answer.statusCode = 200
        self.call.answer(answer)


def main():
    local, server, user, password = sys.argv[1:5]
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    config = pj.EpConfig()
    config.logConfig.level, config.logConfig.consoleLevel = 4, 0
    config.logConfig.filename = f"pjsua-{user}.log"
    config.uaConfig.threadCnt, config.uaConfig.mainThreadOnly = 0, True
    endpoint.libInit(config)
    transport = pj.TransportConfig()
    transport.port, transport.boundAddress = int(local), "127.0.0.1"
    endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
    endpoint.libStart()
    endpoint.audDevManager().setNullDev()
    wanted = pj.AccountConfig()
    wanted.idUri = f"sip:{user}@127.0.0.1"
    wanted.regConfig.registrarUri = f"sip:127.0.0.1:{server}"
    wanted.sipConfig.proxies.append(f"sip:127.0.0.1:{server};lr")
    wanted.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", user, 0, password))
    account = Account()
    account.create(wanted)
    while True:
        endpoint.libHandleEvents(20)
        if account.call:
            account.call.listen()
        if not select.select([sys.stdin], [], [], 0)[0]:
            continue
        command, _, rest = sys.stdin.readline().strip().partition(" ")
        if command == "call":
            account.call = Call(account)
            account.call.makeCall(rest, pj.CallOpParam(True))
        elif command == "hangup":
            account.call.hangup(pj.CallOpParam())
        elif command in ("quit", ""):
            # Not the library's own end: it waits for seconds.
            os._exit(0)


main()
